"""Bilinear interpolation, with corners aligned or with each feature where a trunk put it.

`jax.image.resize` has half-pixel centres as well as "patches", but smooths where it shrinks. The weights are known when
the shapes are: two small matrices, one for the rows and one for the columns.
"""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from minmax_jax.ops import free_sizes, platforms


def _corner_positions(size_in: int, size_out: int) -> np.ndarray:
    """Output i reads i * (size_in - 1) / (size_out - 1); a single output reads the first input."""
    return np.arange(size_out) * ((size_in - 1) / max(size_out - 1, 1))


def _feature_positions(size_in: int, size_out: int) -> np.ndarray:
    """Output i reads i / S, and the last input beyond it.

    S is the smallest whole number with size_in * S >= size_out. Layers whose windows are odd and padded alike on both
    sides make ceil(size / stride) features of a size and centre feature k on pixel k * stride, so S is that stride
    where the size is a multiple of it (crops and padded images are), or where there are at least `stride` features.
    """
    if size_out < size_in:
        raise ValueError(
            f"alignment='features' only enlarges, not {size_in} features to {size_out} pixels; use 'corners'."
        )
    stride = -(-size_out // size_in)
    return np.minimum(np.arange(size_out) / stride, size_in - 1)


def _patch_positions(size_in: int, size_out: int) -> np.ndarray:
    """Output i reads (i + 0.5) size_in / size_out - 0.5, and the border's input beyond it.

    For inputs that are patches, or pixels, side by side over all of the outputs: each lies on the centre of its patch.
    """
    return np.clip((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5, 0, size_in - 1)


ALIGNMENTS = {"corners": _corner_positions, "features": _feature_positions, "patches": _patch_positions}


def _neighbours(size_in: int, size_out: int, alignment: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two inputs that each output reads, [size_out] each, and the share of the second."""
    positions = ALIGNMENTS[alignment](size_in, size_out)
    below = np.minimum(positions.astype(int), size_in - 1)
    return below, np.minimum(below + 1, size_in - 1), positions - below


def interpolation_matrix(size_in: int, size_out: int, *, alignment: str = "corners") -> np.ndarray:
    """The weights of linear interpolation.

    Args:
        size_in: number of inputs.
        size_out: number of outputs.
        alignment: as in `resize_bilinear`.

    Returns:
        [size_out, size_in] float64; each row sums to 1.
    """
    below, above, share = _neighbours(size_in, size_out, alignment)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    matrix[rows, below] = 1 - share
    matrix[rows, above] += share
    return matrix


def _free_matrix(size_in: free_sizes.Size, size_out: free_sizes.Size, alignment: str) -> jax.Array:
    """As `interpolation_matrix`, computed when the sides are known, from positions that are exact fractions."""
    places = jnp.arange(size_out, dtype=jnp.int32)
    if alignment == "corners":
        over, under = places * jnp.asarray(size_in - 1, jnp.int32), free_sizes.maximum(size_out - 1, 1)
    elif alignment == "features":
        over, under = places, -(-size_out // size_in)
    else:
        over, under = (2 * places + 1) * size_in - size_out, 2 * size_out
    under = jnp.asarray(under, jnp.int32)
    over = jnp.clip(over, 0, jnp.asarray(size_in - 1, jnp.int32) * under)
    below, share = lax.div(over, under), lax.rem(over, under).astype(jnp.float32) / under.astype(jnp.float32)
    columns = jnp.arange(size_in, dtype=jnp.int32)
    distances = columns - below[:, None]
    # A position on the last input has a share of 0: there is no input above it.
    return jnp.where(distances == 0, 1 - share[:, None], jnp.where(distances == 1, share[:, None], 0))


def resize_bilinear(images: jax.Array, size: tuple[int, int], *, alignment: str = "corners") -> jax.Array:
    """Resizes [B, H, W, K] images to [B, *size, K], without antialiasing.

    In full precision on every platform: masks are thresholded, and the reduced default of GPUs and TPUs would move
    their edges.

    Args:
        images: of any number of channels.
        size: height and width of the result, in pixels.
        alignment: "corners": the corner pixels of input and output coincide. "features": for feature maps, each of
            which comes back to the pixel that its window was centred on. "patches": for features of patches that
            tile the images, each of which comes back to the centre of its patch.

    Raises:
        ValueError: for "features" of a map larger than the result.

    Example:
        Two pixels at four: by their corners, and by the centres of patches that tile the image.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from minmax_jax.ops import resize
        >>> images = jnp.array([0.0, 3.0]).reshape(1, 1, 2, 1)
        >>> print(np.asarray(resize.resize_bilinear(images, (1, 4))[0, 0, :, 0]).round(2))
        [0. 1. 2. 3.]
        >>> print(np.asarray(resize.resize_bilinear(images, (1, 4), alignment="patches")[0, 0, :, 0]).round(2))
        [0.   0.75 2.25 3.  ]
    """
    for axis, size_out in zip((1, 2), size):
        if images.shape[axis] == size_out:
            continue
        if alignment == "features" and size_out == 2 * images.shape[axis]:
            images = _double(images, axis)
        elif free_sizes.is_free(images.shape[axis]) or free_sizes.is_free(size_out):
            images = _multiply(images, axis, _free_matrix(images.shape[axis], size_out, alignment))
        else:
            images = _mix(images, axis, interpolation_matrix(images.shape[axis], size_out, alignment=alignment))
    return images


def resize_each(
    images: jax.Array, size: tuple[int, int], sizes: jax.Array, new_sizes: jax.Array, *, alignment: str = "corners"
) -> jax.Array:
    """`resize_bilinear` of images that fill the upper left corner of their arrays, each with its own sizes.

    Args:
        images: [B, h, w, K].
        size: (H, W) of the result.
        sizes: [B, 2] int32, the part of each array that is its image.
        new_sizes: [B, 2] int32, the part of each result that is its image.
        alignment: as in `resize_bilinear`.

    Returns:
        [B, H, W, K]; without meaning beyond the images.
    """
    for axis, size_out in zip((1, 2), size):
        matrices = _matrices(
            images.shape[axis], size_out, sizes[:, axis - 1, None], new_sizes[:, axis - 1, None], alignment
        )
        images = _multiply(images, axis, matrices)
    return images


def _matrices(length_in: int, length_out: int, size_in: jax.Array, size_out: jax.Array, alignment: str) -> jax.Array:
    """[B, length_out, length_in], each as `interpolation_matrix` of its sizes [B, 1]; positions are exact fractions."""
    places = jnp.arange(length_out, dtype=jnp.int32)
    if alignment == "corners":
        over, under = places * (size_in - 1), jnp.maximum(size_out - 1, 1)
    elif alignment == "features":
        over, under = places, -(-size_out // size_in)
    else:
        over, under = (2 * places + 1) * size_in - size_out, 2 * size_out
    over = jnp.clip(over, 0, (size_in - 1) * under)
    below, share = (over // under)[..., None], (over % under / under)[..., None]
    distances = jnp.arange(length_in, dtype=jnp.int32) - below
    # A position on the last input has a share of 0: there is no input above it.
    return jnp.where(distances == 0, 1 - share, jnp.where(distances == 1, share, 0))


def _double(images: jax.Array, axis: int) -> jax.Array:
    """Each value and the mean of it and the next, in turn; the last twice. A third of the time of a product."""
    following = jnp.concatenate(
        [lax.slice_in_dim(images, 1, None, axis=axis), lax.slice_in_dim(images, -1, None, axis=axis)], axis
    )
    pairs = jnp.stack([images, (images + following) / 2], axis + 1)
    return pairs.reshape(*images.shape[:axis], 2 * images.shape[axis], *images.shape[axis + 1 :])


def _mix(images: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """The matrix, whose rows are zeros but for a few numbers side by side, times the images along an axis."""
    # On a GPU such a product becomes a kernel of Triton's, which with three channels compiles in some programs only; to
    # read what is not 0 is less work there. CPUs take 2 to 40 times as long for it, and TPUs are made for products.
    return (_gather if platforms.is_gpu() else _multiply)(images, axis, matrix)


def _multiply(images, axis, matrix):
    """A matrix, or one of each image [B, out, in], times the images along an axis."""
    terms = "oh,bhwk->bowk" if axis == 1 else "ow,bhwk->bhok"
    terms = "b" * (matrix.ndim == 3) + terms
    return jnp.einsum(terms, jnp.asarray(matrix, images.dtype), images, precision=lax.Precision.HIGHEST)


def _gather(images, axis, matrix):
    size_out, size_in = matrix.shape
    count = np.count_nonzero(matrix, axis=1).max()
    first = np.minimum(np.argmax(matrix != 0, axis=1), size_in - count)
    places = first[:, None] + np.arange(count)
    weights = np.take_along_axis(matrix, places, axis=1).reshape(size_out, count, *[1] * (3 - axis))

    @jax.custom_vjp
    def gather(images):
        read = jnp.take(images, places, axis, mode="clip")
        return jnp.sum(read * jnp.asarray(weights, images.dtype), axis=axis + 1)

    # By itself the gradient of a gather adds up in any order.
    gather.defvjp(lambda images: (gather(images), None), lambda _, cotangents: (_gather(cotangents, axis, matrix.T),))
    return gather(images)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] soft mask at another size, float64; bilinear between the centres of pixels, as images are resized.

    Example:
        >>> import numpy as np
        >>> from minmax_jax.ops import resize
        >>> resize.resize_mask(np.array([[0.0, 1.0]]), (1, 4)).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    mask = mask.astype(float)
    for axis, size_out in enumerate(size):
        if mask.shape[axis] != size_out:  # read what is not 0: products of matrices would cost more than all metrics
            below, above, share = _neighbours(mask.shape[axis], size_out, "patches")
            share = share if axis else share[:, None]
            mask = mask.take(below, axis) * (1 - share) + mask.take(above, axis) * share
    return mask
