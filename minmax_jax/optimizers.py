"""Optimizers and learning-rate schedules, by name."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from minmax_jax import schedules

OPTIMIZERS = ("sgd", "adam", "adamw")
LEARNING_RATES = ("step", "multistep", "cosine")
DECAYED = ("all", "kernels")


def create_learning_rate(
    kind: str,
    *,
    peak: float,
    epochs: int,
    steps_per_epoch: int,
    factor: float = 0.1,
    every: int = 40,
    milestones: tuple[int, ...] = (),
    floor: float = 0.0,
    warmup_epochs: int = 0,
) -> schedules.Schedule:
    """The learning rate as a function of the step.

    Args:
        kind: "step" (times `factor` each `every` epochs; published), "multistep" (at the milestones), or
            "cosine" (to `floor` at the end). The first two are constant within an epoch.
        peak: the rate after warm-up.
        epochs: length of the training.
        steps_per_epoch: steps in one.
        factor: of "step" and "multistep".
        every: epochs between two drops of "step".
        milestones: epochs of the drops of "multistep".
        floor: the rate never falls below it.
        warmup_epochs: epochs of linear rise from 0 before "cosine".

    Raises:
        ValueError: for an unknown kind or a warm-up that does not end before the training does.
    """
    if kind == "step":
        drops = optax.exponential_decay(peak, every, factor, staircase=True, end_value=floor)
        return schedules.by_epoch(drops, steps_per_epoch)
    if kind == "multistep":
        drops = optax.piecewise_constant_schedule(peak, {epoch: factor for epoch in milestones})
        return schedules.by_epoch(lambda epoch: jnp.maximum(drops(epoch), floor), steps_per_epoch)
    if kind == "cosine":
        if not 0 <= warmup_epochs < epochs:
            raise ValueError(f"warmup_epochs={warmup_epochs} must be at least 0 and below epochs={epochs}.")
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if warmup_epochs else peak,
            peak_value=peak,
            warmup_steps=warmup_epochs * steps_per_epoch,
            decay_steps=epochs * steps_per_epoch,
            end_value=floor,
        )
    raise ValueError(f"Learning-rate schedule {kind!r} must be one of {LEARNING_RATES}.")


def create_optimizer(
    kind: str,
    learning_rate: schedules.Schedule | float,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    dampening: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    amsgrad: bool = False,
    weight_decay: float = 0.0,
    decayed: str = "all",
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """The optimizer.

    Args:
        kind: "sgd" (published), "adam" or "adamw".
        learning_rate: constant or schedule.
        momentum: of SGD.
        nesterov: Nesterov's momentum for SGD.
        dampening: of SGD's momentum; as in PyTorch the first gradient is not dampened.
        beta1: Adam's decay of the mean.
        beta2: Adam's decay of the second moment.
        amsgrad: the variant of Adam that never lowers its second moment.
        weight_decay: added to the gradient ("sgd", "adam"), or to the step itself ("adamw").
        decayed: "all" parameters (published), or only "kernels", leaving out biases and batch norm.
        clip_norm: gradients are scaled down to this global norm; 0 leaves them as they are.

    Raises:
        ValueError: for an unknown name, or an option that the optimizer cannot follow.
    """
    if decayed not in DECAYED:
        raise ValueError(f"decayed={decayed!r} must be one of {DECAYED}.")
    if nesterov and dampening and kind == "sgd":
        raise ValueError(f"nesterov=True needs dampening=0, not {dampening}.")
    decay = optax.add_decayed_weights(weight_decay, mask=_is_kernel if decayed == "kernels" else None)
    adam = (optax.scale_by_amsgrad if amsgrad else optax.scale_by_adam)(beta1, beta2)
    rules = {
        "sgd": (decay, _trace(momentum, nesterov, dampening)),
        "adam": (decay, adam),
        "adamw": (adam, decay),
    }
    if kind not in rules:
        raise ValueError(f"Optimizer {kind!r} must be one of {OPTIMIZERS}.")
    clip = (optax.clip_by_global_norm(clip_norm),) if clip_norm else ()
    return optax.chain(*clip, *rules[kind], optax.scale_by_learning_rate(learning_rate))


def _is_kernel(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


class _DampenedState(NamedTuple):
    count: jax.Array
    trace: Any


def _trace(momentum: float, nesterov: bool, dampening: float) -> optax.GradientTransformation:
    """Momentum; with dampening v = m v + (1 - dampening) g, but v = g at first (optax has none)."""
    if dampening == 0:
        return optax.trace(momentum, nesterov)

    def init(params):
        return _DampenedState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params
        share = jnp.where(state.count == 0, 1.0, 1 - dampening)
        trace = jax.tree.map(lambda v, g: momentum * v + share * g, state.trace, updates)
        return trace, _DampenedState(state.count + 1, trace)

    return optax.GradientTransformation(init, update)
