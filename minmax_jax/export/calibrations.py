"""`refinement.calibration` as functions that JAX can trace, for batches of masks."""

import fractions

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from minmax_jax.ops import free_sizes


def between_percentiles(masks: jax.Array, *, low: float = 5.0, high: float = 95.0) -> jax.Array:
    """[B, H, W, 1] masks, each with its `low` percentile at 0 and its `high` at 1, cut off there.

    Args:
        masks: [B, H, W, 1] soft masks.
        low: percentile that becomes 0.
        high: percentile that becomes 1.
    """
    values = _sort(masks)
    minimum, maximum = (_interpolate(values, percentage) for percentage in (low, high))
    return jnp.clip((masks - minimum) / jnp.maximum(maximum - minimum, np.finfo(np.float32).tiny), 0, 1)


def _sort(masks: jax.Array) -> jax.Array:
    """[B, 1, H * W, 1], in increasing order."""
    _, height, width, _ = masks.shape
    return jnp.sort(masks.reshape(-1, 1, height * width, 1), axis=2)


def _interpolate(values: jax.Array, percentage: float) -> jax.Array:
    count = values.shape[2] - 1
    # In whole numbers, which a free count needs as well.
    share = fractions.Fraction(percentage).limit_denominator(1000) / 100
    below, rest = divmod(count * share.numerator, share.denominator)
    above = free_sizes.minimum(below + 1, count)
    part = jnp.asarray(rest, jnp.float32) / share.denominator
    lower, upper = (lax.slice_in_dim(values, place, place + 1, axis=2) for place in (below, above))
    return lower * (1 - part) + upper * part


def as_it_is(masks: jax.Array) -> jax.Array:
    """The masks."""
    return masks


CALIBRATIONS = {"percentiles": between_percentiles, "none": as_it_is}
