"""A 2-D convolution and its gradients as matrix products of shifted views, for CPUs where conv.c does not serve.

XLA does ordinary convolutions of larger maps well; conv.py says which it does not. All functions take images
[B, H, W, K], a kernel [kh, kw, K, L], and cotangents [B, h, w, L].
"""

import itertools

import jax
from jax import lax
import jax.numpy as jnp

_SMALL_MAP = 36  # places


def is_small(images: jax.Array) -> bool:
    """Whether a map has so few places that a sum of products is the fastest form.

    Where it has fewer than the kernel, XLA's convolution swaps the two, and falls back to naive loops: thirty times
    slower.
    """
    return images.shape[1] * images.shape[2] < _SMALL_MAP


def output(images, kernel, *, strides, padding) -> jax.Array:
    """The convolution, [B, h, w, L].

    Args:
        images: [B, H, W, K].
        kernel: [kh, kw, K, L].
        strides: along rows and columns.
        padding: ((top, bottom), (left, right)).
    """
    return _sum_of_products(images, kernel, strides, padding, contracted=0)


def input_gradient(images, kernel, cotangents, *, strides, padding) -> jax.Array:
    """Gradient to the images, [B, H, W, K]: the cotangents, spread out by the stride, meet the kernel turned around.

    Args:
        images: as in `output`; their shape alone counts.
        kernel: as in `output`.
        cotangents: [B, h, w, L] of the result.
        strides: as in `output`.
        padding: as in `output`.
    """
    spread, widths = [], []
    for axis, (stride, (low, _)) in enumerate(zip(strides, padding)):
        size, out, window = images.shape[1 + axis], cotangents.shape[1 + axis], kernel.shape[axis]
        before = window - 1 - low
        after = size + low - ((out - 1) * stride + 1)
        spread.append((0, 0, stride - 1))
        widths.append((before, after))
    dilated = lax.pad(cotangents, jnp.zeros((), cotangents.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    return _sum_of_products(dilated, jnp.flip(kernel, (0, 1)), (1, 1), widths, contracted=1)


def kernel_gradient(images, kernel, cotangents, *, strides, padding) -> jax.Array:
    """Gradient to the kernel, [kh, kw, K, L].

    Args:
        images: as in `output`.
        kernel: as in `output`; its shape alone counts.
        cotangents: [B, h, w, L] of the result.
        strides: as in `output`.
        padding: as in `output`.
    """
    cotangents = cotangents.reshape(-1, cotangents.shape[-1])
    products = [view.T @ cotangents for _, view in _views(images, kernel.shape, strides, padding)]
    return jnp.stack(products).reshape(kernel.shape)


def output_size(images, window, strides, padding) -> tuple[int, int]:
    """Height and width of the result of a convolution.

    Args:
        images: [B, H, W, K].
        window: begins with the kernel's rows and columns.
        strides: as in `output`.
        padding: as in `output`.
    """
    sides = zip(images.shape[1:3], padding, window[:2], strides)
    return tuple((size + low + high - side) // stride + 1 for size, (low, high), side, stride in sides)


def _sum_of_products(images, kernel, strides, padding, *, contracted) -> jax.Array:
    """Products with the kernel's places, [K, L] each; `contracted` is the axis of these that meets the images'."""
    total = 0
    for (row, column), view in _views(images, kernel.shape, strides, padding):
        total += lax.dot_general(view, kernel[row, column], (((1,), (contracted,)), ((), ())))
    rows, columns = output_size(images, kernel.shape, strides, padding)
    return total.reshape(len(images), rows, columns, kernel.shape[3 - contracted])


def _views(images, kernel_shape, strides, padding):
    """For each place of the kernel what it meets, [B * h * w, K]."""
    # lax.pad cuts where the padding is negative, as a convolution does.
    padded = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)])
    rows, columns = output_size(images, kernel_shape, strides, padding)
    for row, column in itertools.product(*map(range, kernel_shape[:2])):
        end = (row + (rows - 1) * strides[0] + 1, column + (columns - 1) * strides[1] + 1)
        view = lax.slice(padded, (0, row, column, 0), (len(images), *end, images.shape[-1]), (1, *strides, 1))
        yield (row, column), view.reshape(-1, images.shape[-1])
