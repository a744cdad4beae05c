"""Numbers that change while training. A schedule is what optax calls one: step -> value."""

from collections.abc import Callable

import jax

Schedule = Callable[[jax.Array | int], jax.Array | float]


def at(schedule: Schedule | float, step: jax.Array | int) -> jax.Array | float:
    """The value of a schedule, or of a constant, at a step."""
    return schedule(step) if callable(schedule) else schedule


def by_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """A schedule over steps from one over epochs: constant within each epoch."""
    return lambda step: schedule(step // steps_per_epoch)
