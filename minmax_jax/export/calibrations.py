"""`refinement.calibration` as functions that JAX can trace, for batches of masks."""

import fractions

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from minmax_jax.ops import free_sizes

_GROUPS = 16  # Otsu's 256 bins are counted as 16 times 16
_BINS = _GROUPS**2


def between_percentiles(masks: jax.Array, *, low: float = 5.0, high: float = 95.0) -> jax.Array:
    """[B, H, W, 1] masks, each with its `low` percentile at 0 and its `high` at 1, cut off there.

    Args:
        masks: [B, H, W, 1] soft masks.
        low: percentile that becomes 0.
        high: percentile that becomes 1.
    """
    values = _sort(masks)
    least, greatest = (_interpolate(values, percentage) for percentage in (low, high))
    return jnp.clip((masks - least) / jnp.maximum(greatest - least, np.finfo(np.float32).tiny), 0, 1)


def _sort(masks: jax.Array) -> jax.Array:
    """[B, 1, H * W, 1], in increasing order."""
    _, height, width, _ = masks.shape
    return jnp.sort(masks.reshape(-1, 1, height * width, 1), axis=2)


def _interpolate(values: jax.Array, percentage: float) -> jax.Array:
    count = values.shape[2] - 1
    # In whole numbers, which a free count needs as well.
    share = fractions.Fraction(percentage).limit_denominator(1000) / 100
    below, rest = divmod(count * share.numerator, share.denominator)
    above = free_sizes.least(below + 1, count)
    part = jnp.asarray(rest, jnp.float32) / share.denominator
    lower, upper = (lax.slice_in_dim(values, place, place + 1, axis=2) for place in (below, above))
    return lower * (1 - part) + upper * part


def at_otsu(masks: jax.Array) -> jax.Array:
    """[B, H, W, 1] masks, each with its Otsu threshold at 0.5, its least value at 0 and its greatest at 1."""
    least, greatest = (extreme(masks, axis=(1, 2), keepdims=True) for extreme in (jnp.min, jnp.max))
    span = jnp.where(greatest > least, greatest - least, 1)
    shares = (masks - least) / span
    threshold = (_otsu_bin(shares) + 1) / _BINS
    lower, upper = 0.5 * shares / threshold, 0.5 + 0.5 * (shares - threshold) / (1 - threshold)
    return jnp.where(shares < threshold, lower, upper) * (greatest > least)


def _otsu_bin(shares: jax.Array) -> jax.Array:
    """[B, 1, 1, 1], the last bin below the threshold, of values in [0, 1]."""
    _, height, width, _ = shares.shape
    bins = jnp.minimum(jnp.floor(shares * _BINS), _BINS - 1).reshape(-1, height * width, 1)
    groups = jnp.floor(bins / _GROUPS)
    # Counts as a product: a histogram by indices has no form in ONNX, and one by comparisons needs 16 times the memory.
    is_of = [
        (value == np.arange(_GROUPS, dtype=np.float32)).astype(jnp.float32)
        for value in (groups, bins - _GROUPS * groups)
    ]
    counts = jnp.einsum("bpi,bpj->bij", *is_of, precision=jax.lax.Precision.HIGHEST).reshape(-1, _BINS)
    # Twice the centres of the bins are whole numbers, and so are the sums.
    counts = counts.astype(jnp.int32)
    below = jnp.cumsum(counts, axis=1)[:, :-1].astype(jnp.float32)
    sums = jnp.cumsum(counts * np.arange(1, 2 * _BINS, 2, dtype=np.int32), axis=1).astype(jnp.float32)
    above, rest = height * width - below, sums[:, -1:] - sums[:, :-1]
    variances = below * above * jnp.square(sums[:, :-1] / below - rest / above)
    return jnp.argmax(variances, axis=1).astype(jnp.float32)[:, None, None, None]


def as_it_is(masks: jax.Array) -> jax.Array:
    """The masks."""
    return masks


CALIBRATIONS = {"percentiles": between_percentiles, "otsu": at_otsu, "none": as_it_is}
