"""Learning-rate schedules: functions from the step to the rate, as in optax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from minmax_jax.base import options
from minmax_jax.base.errors import OptionError

Schedule = Callable[[jax.Array | int], jax.Array | float]
LEARNING_RATES = ("step", "cosine")
_DROP = 0.1  # of the schedule "step"; published


def create_learning_rate(
    kind: str,
    *,
    peak: float,
    epochs: int,
    steps_per_epoch: int,
    every: int = 40,
    floor: float = 1e-7,
    warmup_share: float = 0.0,
) -> Schedule:
    """The learning rate as a function of the step. Defaults are published values.

    Args:
        kind: "step" (a tenth after every `every` epochs, and constant within an epoch; published), or "cosine" (to
            `floor` in the last step).
        peak: the rate after warm-up.
        epochs: length of the training.
        steps_per_epoch: steps in one epoch.
        every: epochs between two drops of "step".
        floor: minimum rate.
        warmup_share: share of the training in which the rate grows linearly from 0, of "cosine" alone; at least one
            step remains.

    Raises:
        OptionError: for an unknown kind, a number out of range, or a warm-up of another kind.

    Example:
        A cosine over 2 epochs of 5 steps: the peak, half of it in the middle, 0 at the end.

        >>> from minmax_jax.training import schedules
        >>> rate = schedules.create_learning_rate("cosine", peak=0.1, epochs=2, steps_per_epoch=5, floor=0.0)
        >>> [round(float(rate(step)), 3) for step in (0, 5, 10)]
        [0.1, 0.05, 0.0]
    """
    options.check_choice("schedule", kind, LEARNING_RATES)
    options.check_range("peak", peak, 0)
    options.check_range("floor", floor, 0)
    options.check_range("every", every, 1)
    options.check_range("steps_per_epoch", steps_per_epoch, 1)
    options.check_range("warmup_share", warmup_share, 0, 0.99)
    if kind == "step":
        if warmup_share:
            raise OptionError(
                f"warmup_share={warmup_share} must be 0 with schedule='step'; set schedule='cosine' for a warm-up."
            )
        return lambda step: jnp.maximum(peak * _DROP ** (step // steps_per_epoch // every), floor)
    num_steps = epochs * steps_per_epoch
    warmup_steps = min(round(warmup_share * num_steps), num_steps - 1)  # at least one step is left for the decay
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup_steps else peak,
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=num_steps,
        end_value=floor,
    )
