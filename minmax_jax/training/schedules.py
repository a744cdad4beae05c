"""Learning-rate schedules: functions from the step to the rate, as in optax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from minmax_jax.base import options
from minmax_jax.base.errors import OptionError

Schedule = Callable[[jax.Array | int], jax.Array | float]
LEARNING_RATES = ("step", "multistep", "cosine")


def create_learning_rate(
    kind: str,
    *,
    peak: float,
    epochs: int,
    steps_per_epoch: int,
    factor: float = 0.1,
    every: int = 40,
    milestones: tuple[int, ...] = (),
    floor: float = 1e-7,
    warmup_epochs: int = 0,
    warmup_share: float = 0.0,
) -> Schedule:
    """The learning rate as a function of the step. Defaults are published values.

    Args:
        kind: "step" (times `factor` every `every` epochs; published), "multistep" (times `factor` at the milestones),
            or "cosine" (to `floor` in the last step). The first two are constant within an epoch.
        peak: the rate after warm-up.
        epochs: length of the training.
        steps_per_epoch: steps in one epoch.
        factor: of each drop of "step" and "multistep".
        every: epochs between two drops of "step".
        milestones: epochs of the drops of "multistep".
        floor: least rate.
        warmup_epochs: epochs of linear growth from 0, of "cosine" alone.
        warmup_share: the same as a share of the training, in place of `warmup_epochs`; one step at least remains.

    Raises:
        OptionError: for an unknown kind, a number out of range, or a warm-up that is too long or of another kind.
    """
    options.check_choice("schedule", kind, LEARNING_RATES)
    options.check_range("peak", peak, 0)
    options.check_range("floor", floor, 0)
    options.check_range("every", every, 1)
    options.check_range("steps_per_epoch", steps_per_epoch, 1)
    options.check_range("factor", factor, 0, 1)
    options.check_numbers("milestones", milestones, 0, whole=True)
    if kind != "cosine" and (warmup_epochs or warmup_share):
        raise OptionError(
            f"warmup_epochs={warmup_epochs} and warmup_share={warmup_share} must be 0 with schedule={kind!r}; set"
            " schedule='cosine' for a warm-up."
        )
    if kind == "step":
        return _by_epoch(lambda epoch: jnp.maximum(peak * factor ** (epoch // every), floor), steps_per_epoch)
    if kind == "multistep":
        drops = optax.piecewise_constant_schedule(peak, {epoch: factor for epoch in milestones})
        return _by_epoch(lambda epoch: jnp.maximum(drops(epoch), floor), steps_per_epoch)
    num_steps = epochs * steps_per_epoch
    warmup_steps = _count_warmup_steps(num_steps, steps_per_epoch, epochs, warmup_epochs, warmup_share)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup_steps else peak,
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=num_steps,
        end_value=floor,
    )


def _count_warmup_steps(
    num_steps: int, steps_per_epoch: int, epochs: int, warmup_epochs: int, warmup_share: float
) -> int:
    """Steps of linear growth; at least one step is left for the decay."""
    options.check_range("warmup_share", warmup_share, 0, 0.99)
    if warmup_share and warmup_epochs:
        raise OptionError(f"warmup_share={warmup_share} and warmup_epochs={warmup_epochs} exclude each other.")
    if not 0 <= warmup_epochs < epochs:
        raise OptionError(
            f"warmup_epochs={warmup_epochs} must be at least 0 (no warm-up) and below the {epochs} training epochs."
        )
    return min(warmup_epochs * steps_per_epoch + round(warmup_share * num_steps), num_steps - 1)


def _by_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """A schedule over steps from one over epochs: constant within each epoch."""
    return lambda step: schedule(step // steps_per_epoch)
