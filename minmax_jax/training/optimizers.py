"""Optimizers by name."""

from typing import Any

import jax
import optax

from minmax_jax.base import options
from minmax_jax.models import trunks
from minmax_jax.training.schedules import Schedule

OPTIMIZERS = ("sgd", "adam", "adamw")
DECAYED = ("all", "kernels")


def create_optimizer(
    kind: str,
    learning_rate: Schedule | float,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 1e-5,
    decayed: str = "all",
    clip_norm: float = 0.0,
    trunk_factor: float = 1.0,
) -> optax.GradientTransformation:
    """The optimizer. Defaults are published values.

    Parameters of modules named `trunks.FROZEN` have no weight decay: without gradients, nothing else would move them.

    Args:
        kind: "sgd" (published), "adam" or "adamw".
        learning_rate: constant or schedule.
        momentum: of SGD.
        nesterov: Nesterov's momentum for SGD.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        weight_decay: added to the gradient ("sgd", "adam"), or to the update itself ("adamw").
        decayed: parameters with weight decay: "all" (published), or only "kernels", not biases and batch norm.
        clip_norm: greatest global norm of the gradient; 0 does not clip.
        trunk_factor: learning rate of the trunks, as a multiple of the heads'; 0 keeps them as they are.

    Raises:
        OptionError: for an unknown name or a number out of range.
    """
    options.check_choice("name", kind, OPTIMIZERS)
    options.check_choice("decayed", decayed, DECAYED)
    options.check_range("weight_decay", weight_decay, 0)
    options.check_range("clip_norm", clip_norm, 0)
    options.check_range("trunk_factor", trunk_factor, 0)
    decay = _weight_decay(weight_decay, kernels_only=decayed == "kernels")
    adam = optax.scale_by_adam(beta1, beta2)
    rules = {"sgd": (decay, optax.trace(momentum, nesterov)), "adam": (decay, adam), "adamw": (adam, decay)}
    clip = (optax.clip_by_global_norm(clip_norm),) if clip_norm else ()
    trunk = (optax.masked(optax.scale(trunk_factor), _is_of_trunk),) if trunk_factor != 1 else ()
    return optax.chain(*clip, *rules[kind], *trunk, optax.scale_by_learning_rate(learning_rate))


def _is_of_trunk(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key.endswith("trunk"), params)


def _weight_decay(weight_decay: float, *, kernels_only: bool) -> optax.GradientTransformation:
    def add(path, update, param):
        names = [entry.key for entry in path]
        is_decayed = trunks.FROZEN not in names and (names[-1] == "kernel" or not kernels_only)
        return update + weight_decay * param if is_decayed else update

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(add, updates, params))
