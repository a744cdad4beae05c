"""Max pooling whose gradient is fast on a CPU."""

import functools

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(features: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Square max pooling of [B, H, W, K] features, padded by minus infinity on all sides.

    On a CPU its gradient is that of a maximum over strided slices, an order of magnitude faster than XLA's
    select-and-scatter; there, equal maxima share the gradient where XLA's gives it to the first. Behind a
    ReLU the two agree: what ties is zero, and the ReLU stops its gradient.
    """
    return _reduce_window(features, window, stride, padding)


def _reduce_window(features, window, stride, padding):
    sides = ((padding, padding), (padding, padding))
    return nn.max_pool(features, (window, window), (stride, stride), sides)


def _maximum_of_slices(features, window, stride, padding):
    _, height, width, _ = features.shape
    rows, columns = ((size + 2 * padding - window) // stride + 1 for size in (height, width))
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(features, sides, constant_values=-jnp.inf)
    slices = [
        padded[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]
    return functools.reduce(jnp.maximum, slices)


def _forward(features, window, stride, padding):
    return _reduce_window(features, window, stride, padding), features


def _backward(window, stride, padding, features, cotangents):
    def gradient_of(pool):
        def gradient(features, cotangents):
            return jax.vjp(lambda x: pool(x, window, stride, padding), features)[1](cotangents)

        return gradient

    return lax.platform_dependent(
        features, cotangents, cpu=gradient_of(_maximum_of_slices), default=gradient_of(_reduce_window)
    )


max_pool.defvjp(_forward, _backward)
