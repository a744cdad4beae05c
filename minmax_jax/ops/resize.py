"""Bilinear interpolation with aligned corners: the corner pixels of input and output coincide.

`jax.image.resize` has half-pixel centres, so the two differ. The weights are known when the shapes are: two
small matrices, one for the rows and one for the columns.
"""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np


def interpolation_matrix(size_in: int, size_out: int) -> np.ndarray:
    """The [size_out, size_in] float64 weights of linear interpolation with aligned corners.

    Output i lies at i * (size_in - 1) / (size_out - 1); a single output takes the first input.
    """
    positions = np.arange(size_out) * ((size_in - 1) / max(size_out - 1, 1))
    below = np.minimum(positions.astype(int), size_in - 1)
    above = np.minimum(below + 1, size_in - 1)
    share = positions - below
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    matrix[rows, below] = 1 - share
    matrix[rows, above] += share
    return matrix


def resize_bilinear(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes [B, H, W, K] images to [B, *size, K], corners aligned, without antialiasing.

    The products run at full precision on every platform: masks are thresholded, and the reduced default of
    GPUs and TPUs would move their edges.
    """
    for axis, size_out in zip((1, 2), size):
        size_in = images.shape[axis]
        if size_in == size_out:
            continue
        matrix = jnp.asarray(interpolation_matrix(size_in, size_out), images.dtype)
        terms = "oh,bhwk->bowk" if axis == 1 else "ow,bhwk->bhok"
        images = jnp.einsum(terms, matrix, images, precision=lax.Precision.HIGHEST)
    return images
