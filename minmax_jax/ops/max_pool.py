"""Max pooling whose gradient is fast on a CPU."""

import functools

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax.ops import platforms


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(features: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Square max pooling of [B, H, W, K] features, padded by minus infinity on all sides.

    The gradient goes to the first of equal maxima. On a CPU it is written as selections, several times faster than
    XLA's select-and-scatter.
    """
    return _reduce_window(features, window, stride, padding)


def _reduce_window(features, window, stride, padding):
    sides = ((padding, padding), (padding, padding))
    return nn.max_pool(features, (window, window), (stride, stride), sides)


def _forward(features, window, stride, padding):
    return _reduce_window(features, window, stride, padding), features


def _backward(window, stride, padding, features, cotangents):
    statics = dict(window=window, stride=stride, padding=padding)

    def xla_gradient(features, cotangents):
        return jax.vjp(functools.partial(_reduce_window, **statics), features)[1](cotangents)

    def fast_gradient(features, cotangents):
        return (input_gradient(features, cotangents, **statics),)

    return platforms.choose(features, cotangents, cpu=fast_gradient, default=xla_gradient)


max_pool.defvjp(_forward, _backward)


def input_gradient(features, cotangents, *, window, stride, padding) -> jax.Array:
    """Gradient to the features, [B, H, W, K], by selections from the cotangents [B, h, w, K].

    Pixels whose rows, and columns, leave the same rest when divided by the stride lie at the same places of their
    windows: they are computed together, and interleaved at the end.
    """
    batch, height, width, channels = features.shape
    # A loop, so that places are computed once: XLA would do it again for each pixel that it fuses them into.
    places = lax.map(lambda image: _first_maximum(image[None], window, stride, padding)[0], features)
    rows, columns = (-(-(size + 2 * padding) // stride) for size in (height, width))

    def pixels(row_rest, column_rest):
        total = 0
        for row in range(row_rest, window, stride):
            for column in range(column_rest, window, stride):
                chosen = jnp.where(places == row * window + column, cotangents, 0)
                top, left = row // stride, column // stride
                bottom, right = rows - top - chosen.shape[1], columns - left - chosen.shape[2]
                total += jnp.pad(chosen, ((0, 0), (top, bottom), (left, right), (0, 0)))
        return total

    rests = range(stride)
    lines = [jnp.stack([pixels(row_rest, column_rest) for column_rest in rests], axis=3) for row_rest in rests]
    padded = jnp.stack(lines, axis=2).reshape(batch, rows * stride, columns * stride, channels)
    return padded[:, padding : padding + height, padding : padding + width]


def _first_maximum(features, window, stride, padding) -> jax.Array:
    """[B, h, w, K] int32 place in each window, counted by rows, of its greatest value."""
    _, height, width, _ = features.shape
    rows, columns = ((size + 2 * padding - window) // stride + 1 for size in (height, width))
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(features, sides, constant_values=-jnp.inf)
    greatest = padded[:, : (rows - 1) * stride + 1 : stride, : (columns - 1) * stride + 1 : stride]
    places = jnp.zeros(greatest.shape, jnp.int32)
    for place in range(1, window * window):
        i, j = divmod(place, window)
        values = padded[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        places = jnp.where(values > greatest, place, places)
        greatest = jnp.maximum(values, greatest)
    return places
