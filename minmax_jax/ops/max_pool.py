"""Max pooling of what passes a ReLU, whose gradient is fast and needs little memory on a CPU."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from minmax_jax.ops import native, platforms

_MOST_WINDOW = 15  # whose places fit in a byte


def relu_max_pool(features: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Square max pooling of the ReLU of [B, H, W, K] features, padded by zeros on all sides.

    The gradient goes to the first of equal maxima, and nowhere if these are not above 0. Where there are only CPUs
    max_pool.c computes it, which keeps no more than a byte for each maximum; XLA keeps the features, and takes many
    times as long.
    """
    fits = features.dtype == jnp.float32 and window <= _MOST_WINDOW
    # What is kept differs: there is no choice when the program is lowered, as for convolutions.
    if fits and platforms.is_cpu_alone() and native.is_available():
        return _native_pool(features, window, stride, padding, features.shape[1:3])
    return _xla_pool(features, window, stride, padding)


def _xla_pool(features, window, stride, padding):
    sides = ((padding, padding), (padding, padding))
    # The maximum of ReLUs is the ReLU of the maximum, on fewer places.
    return nn.relu(nn.max_pool(features, (window, window), (stride, stride), sides))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _native_pool(features, window, stride, padding, size):
    return _forward(features, window, stride, padding, size)[0]


def _forward(features, window, stride, padding, size):
    del size
    return native.max_pool(features, window=window, stride=stride, padding=padding)


def _backward(window, stride, padding, size, places, cotangents):
    statics = dict(window=window, stride=stride, padding=padding, size=size)
    return (native.max_pool_gradient(places, cotangents, **statics),)


_native_pool.defvjp(_forward, _backward)
