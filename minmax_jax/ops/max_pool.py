"""Max pooling after a ReLU, with a gradient that is fast and needs little memory."""

import functools

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from minmax_jax.ops import platforms
from minmax_jax.ops.cpu import native

_MAX_WINDOW = 15  # side of a window whose indices fit into a byte


def relu_max_pool(features: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Square max pooling of the ReLU of [B, H, W, K] features, padded by zeros on all sides.

    The gradient goes to the first of equal maxima, and nowhere if these are not above 0. It needs one byte per maximum;
    on CPUs max_pool.c computes it. TPUs use XLA's, which keeps the features; on a GPU that form creates four indices of
    32 bits per maximum and adds up in any order.

    Args:
        features: [B, H, W, K].
        window: side of the square windows.
        stride: along rows and columns.
        padding: zeros on all sides.

    Raises:
        ValueError: for a window larger than the padded features.
    """
    if any(side + 2 * padding < window for side in features.shape[1:3]):
        raise ValueError(f"window={window} is larger than features {features.shape} padded by {padding}.")
    # The saved arrays differ, so the form cannot be chosen at lowering as for convolutions.
    if window > _MAX_WINDOW or platforms.is_tpu() or platforms.is_portable():
        return _xla_pool(features, window, stride, padding)
    by_c = features.dtype == jnp.float32 and platforms.is_cpu_alone() and native.is_available()
    return _pool(features, window, stride, padding, features.shape[1:3], by_c)


def _xla_pool(features, window, stride, padding):
    sides = ((padding, padding), (padding, padding))
    # The maximum of ReLUs is the ReLU of the maximum, on fewer numbers.
    return nn.relu(nn.max_pool(features, (window, window), (stride, stride), sides))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _pool(features, window, stride, padding, size, by_c):
    return _forward(features, window, stride, padding, size, by_c)[0]


def _forward(features, window, stride, padding, size, by_c):
    del size
    return (native.max_pool if by_c else _find_maxima)(features, window=window, stride=stride, padding=padding)


def _backward(window, stride, padding, size, by_c, indices, cotangents):
    spread = native.max_pool_gradient if by_c else _spread
    return (spread(indices, cotangents, window=window, stride=stride, padding=padding, size=size),)


_pool.defvjp(_forward, _backward)


def _find_maxima(features: jax.Array, *, window: int, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    """As `native.max_pool`: indices are counted by rows of the window; window**2 if nothing is above 0."""
    batch, *sides, channels = features.shape
    rows, columns = ((side + 2 * padding - window) // stride + 1 for side in sides)
    values = features.astype(jnp.promote_types(features.dtype, jnp.float32))  # faster to compare on CPUs
    values = jnp.pad(values, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    maxima = jnp.zeros((batch, rows, columns, channels), values.dtype)
    indices = jnp.full(maxima.shape, window**2, jnp.uint8)
    for index, (i, j) in enumerate(np.ndindex(window, window)):
        last = (batch, i + (rows - 1) * stride + 1, j + (columns - 1) * stride + 1, channels)
        seen = lax.slice(values, (0, i, j, 0), last, (1, stride, stride, 1))
        taken = ~(seen <= maxima) & (maxima == maxima)  # NaN stays NaN
        maxima, indices = jnp.where(taken, seen, maxima), jnp.where(taken, np.uint8(index), indices)
    return maxima.astype(features.dtype), indices


def _spread(
    indices: jax.Array, cotangents: jax.Array, *, window: int, stride: int, padding: int, size: tuple[int, int]
) -> jax.Array:
    """As `native.max_pool_gradient`."""
    values = cotangents.astype(jnp.promote_types(cotangents.dtype, jnp.float32))
    zero = np.zeros((), values.dtype)
    gradient = jnp.zeros((), values.dtype)
    for index, offsets in enumerate(np.ndindex(window, window)):
        # Spaced by the stride, shifted to this offset in their windows; negative padding crops.
        before = [offset - padding for offset in offsets]
        counts = indices.shape[1:3]
        after = [side - first - (count - 1) * stride - 1 for side, first, count in zip(size, before, counts)]
        sides = [(0, 0, 0), *((*ends, stride - 1) for ends in zip(before, after)), (0, 0, 0)]
        gradient += lax.pad(jnp.where(indices == index, values, zero), zero, sides)
    return gradient.astype(cotangents.dtype)
