"""Optimizers by name."""

from typing import Any

import jax
import optax

from minmax_jax.base import options
from minmax_jax.models import trunks
from minmax_jax.training import adam as adam_lib
from minmax_jax.training.schedules import Schedule

OPTIMIZERS = ("sgd", "adam", "adamw")
_MOMENTUM = 0.9  # Nesterov's; published


def create_optimizer(
    kind: str,
    learning_rate: Schedule | float,
    *,
    weight_decay: float = 1e-5,
    clip_norm: float = 0.0,
    trunk_factor: float = 1.0,
    frozen_modules: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """The optimizer. Defaults are published values.

    Parameters of modules that are not trained have no weight decay: without gradients, nothing else would move them.

    Args:
        kind: "sgd" (published; with Nesterov's momentum of 0.9), "adam" or "adamw" (with decays of 0.9 and 0.999).
        learning_rate: constant or schedule.
        weight_decay: added to the gradient ("sgd", "adam"), or to the update itself ("adamw").
        clip_norm: maximum global norm of the gradient; 0 does not clip.
        trunk_factor: learning rate of the trunks, as a multiple of the heads'; 0 keeps them as they are.
        frozen_modules: names of the modules that are not trained, besides `trunks.FROZEN`.

    Raises:
        OptionError: for an unknown name or a number out of range.

    Example:
        The first step: -rate * (gradient + decay * parameter), times 1.9 by Nesterov's momentum of 0.9, is
        -0.1 * (0.5 + 0.1 * 2) * 1.9.

        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> tx = mm.create_optimizer("sgd", 0.1, weight_decay=0.1)
        >>> params, gradients = {"kernel": jnp.array(2.0)}, {"kernel": jnp.array(0.5)}
        >>> updates, _ = tx.update(gradients, tx.init(params), params)
        >>> round(float(updates["kernel"]), 3)
        -0.133
    """
    options.check_choice("name", kind, OPTIMIZERS)
    options.check_range("weight_decay", weight_decay, 0)
    options.check_range("clip_norm", clip_norm, 0)
    options.check_range("trunk_factor", trunk_factor, 0)
    decay = _weight_decay(weight_decay, {trunks.FROZEN, *frozen_modules})
    adam = adam_lib.scale_by_adam((0.9, 0.999))
    rules = {"sgd": (decay, optax.trace(_MOMENTUM, nesterov=True)), "adam": (decay, adam), "adamw": (adam, decay)}
    clip = (optax.clip_by_global_norm(clip_norm),) if clip_norm else ()
    trunk = (optax.masked(optax.scale(trunk_factor), _is_of_trunk),) if trunk_factor != 1 else ()
    return optax.chain(*clip, *rules[kind], *trunk, optax.scale_by_learning_rate(learning_rate))


def _is_of_trunk(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key.endswith("trunk"), params)


def _weight_decay(weight_decay: float, frozen_modules: set[str]) -> optax.GradientTransformation:
    def add(path, update, param):
        is_frozen = not frozen_modules.isdisjoint(entry.key for entry in path)
        return update if is_frozen else update + weight_decay * param

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(add, updates, params))
