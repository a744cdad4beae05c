"""Images of several sizes in one batch: each in the upper left corner of a canvas, with zeros beyond it.

One compiled program then serves all sizes that a canvas has room for. What reads neighbours is given zeros beyond each
image, as convolutions have them beyond an array; what is taken over an image (pooled places, extremes, percentiles,
means) is taken over its own pixels. The result is that of the image alone, up to rounding. Functions take sizes=None
for arrays that hold nothing but their images, and then return what they are given.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from minmax_jax.ops import intensity, resize

MULTIPLE = 32  # of the sides of images and canvases, in pixels; of the largest output stride


@flax.struct.dataclass
class Canvas:
    """A batch of images of several sizes.

    Attributes:
        pixels: [B, H, W, K], an image in the upper left corner of each.
        sizes: [B, 2] int32 heights and widths of the images, multiples of 32.

    Example:
        >>> import numpy as np
        >>> from minmax_jax.ops import canvas
        >>> images = canvas.Canvas(np.ones((2, 32, 64, 3), np.uint8), np.array([[32, 32], [32, 64]]))
        >>> print(np.asarray(canvas.inside(images.sizes, (32, 64)).sum((1, 2, 3))))
        [1024 2048]
    """

    pixels: jax.Array
    sizes: jax.Array


# [B, H, W, K], or images of several sizes.
Images = jax.Array | Canvas


def split(images: Images) -> tuple[jax.Array, jax.Array | None]:
    """Pixels [B, H, W, K], and sizes [B, 2] or None."""
    return (images.pixels, images.sizes) if isinstance(images, Canvas) else (images, None)


def join(pixels: jax.Array, sizes: jax.Array | None) -> Images:
    """The inverse of `split`."""
    return pixels if sizes is None else Canvas(pixels, sizes)


def normalize(images: Images) -> Images:
    """Images scaled to [-1, 1], with zeros beyond each; as `intensity.normalize`."""
    pixels, sizes = split(images)
    return join(clear(intensity.normalize(pixels), sizes), sizes)


def inside(sizes: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """[B, h, w, 1] bool, what of maps of that shape belongs to the images.

    Args:
        sizes: [B, 2] of the images in these maps.
        shape: (h, w).
    """
    rows = jnp.arange(shape[0]) < sizes[:, :1]
    columns = jnp.arange(shape[1]) < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def clear(maps: jax.Array, sizes: jax.Array | None) -> jax.Array:
    """[B, h, w, K] maps with zeros beyond the images, whose sizes in these maps are [B, 2]."""
    return fill(maps, sizes, 0)


def fill(maps: jax.Array, sizes: jax.Array | None, value: float) -> jax.Array:
    """Maps with one value beyond the images.

    Args:
        maps: [B, h, w, K].
        sizes: [B, 2] of the images in the maps; None changes nothing.
        value: what is put there.
    """
    return maps if sizes is None else jnp.where(inside(sizes, maps.shape[1:3]), maps, value)


def at_stride(sizes: jax.Array | None, stride: int) -> jax.Array | None:
    """The sizes of the images in features of an output stride."""
    return None if sizes is None else -(-sizes // stride)


def look_up(sizes: jax.Array | None, side: Callable[[int], int], shape: tuple[int, int]) -> jax.Array | None:
    """A function of each side, computed before for all sides that there can be: rounding is that of Python.

    Args:
        sizes: [B, 2], multiples of 32.
        side: from pixels to pixels.
        shape: (H, W) of the canvas.
    """
    if sizes is None:
        return None
    table = [0] + [side(MULTIPLE * number) for number in range(1, max(shape) // MULTIPLE + 1)]
    return jnp.asarray(table, jnp.int32)[sizes // MULTIPLE]


def extend(maps: jax.Array, sizes: jax.Array | None) -> jax.Array:
    """[B, h, w, K] maps whose last row and column of each image, of sizes [B, 2], repeat beyond it."""
    if sizes is None:
        return maps
    for axis in (1, 2):
        places = jnp.minimum(jnp.arange(maps.shape[axis]), sizes[:, axis - 1, None] - 1)
        maps = _take(maps, places, axis)
    return maps


def flip(maps: jax.Array, axes: tuple[int, ...], sizes: jax.Array | None) -> jax.Array:
    """Maps whose images are mirrored in their place.

    Args:
        maps: [B, h, w, K].
        axes: 1 exchanges top and bottom, 2 left and right.
        sizes: [B, 2] of the images in the maps; None: all of each map.
    """
    if sizes is None:
        return jnp.flip(maps, axes)
    for axis in axes:
        length = maps.shape[axis]
        # What is beyond an image stays beyond it.
        maps = _take(maps, (sizes[:, axis - 1, None] - 1 - jnp.arange(length)) % length, axis)
    return maps


def _take(maps: jax.Array, places: jax.Array, axis: int) -> jax.Array:
    """Rows (axis 1) or columns (axis 2) of [B, h, w, K] maps at [B, n] places."""
    return jax.vmap(lambda one, where: jnp.take(one, where, axis - 1, mode="clip"))(maps, places)


def resize_to(
    maps: jax.Array,
    shape: tuple[int, int],
    sizes: jax.Array | None,
    new_sizes: jax.Array | None,
    *,
    alignment: str = "corners",
) -> jax.Array:
    """`resize.resize_bilinear` of each image by itself.

    Args:
        maps: [B, h, w, K].
        shape: (H, W) of the result.
        sizes: [B, 2] of the images in the maps.
        new_sizes: [B, 2] of the images in the result.
        alignment: as in `resize.resize_bilinear`.

    Returns:
        [B, H, W, K], with zeros beyond the images.
    """
    if sizes is None:
        return resize.resize_bilinear(maps, shape, alignment=alignment)
    if maps.shape[1:3] != shape:
        maps = resize.resize_each(maps, shape, sizes, new_sizes, alignment=alignment)
    return clear(maps, new_sizes)


def mean(maps: jax.Array, sizes: jax.Array | None) -> jax.Array:
    """[B] means of [B, h, w, 1] maps over the pixels of each image."""
    if sizes is None:
        return jnp.mean(maps, axis=(1, 2, 3))
    return jnp.sum(clear(maps, sizes), axis=(1, 2, 3)) / jnp.prod(sizes, axis=1)


def quantiles(maps: jax.Array, levels: tuple[float, ...], sizes: jax.Array | None) -> jax.Array:
    """Quantiles of the pixels of each image, as `jnp.quantile` has them.

    Args:
        maps: [B, h, w, 1].
        levels: L numbers in [0, 1].
        sizes: [B, 2] of the images in the maps.

    Returns:
        [L, B, 1, 1, 1].
    """
    levels = jnp.asarray(levels, maps.dtype)
    if sizes is None:
        return jnp.quantile(maps, levels, axis=(1, 2, 3), keepdims=True)
    values = jnp.where(inside(sizes, maps.shape[1:3]), maps, jnp.inf).reshape(len(maps), -1)
    places = levels[:, None] * (jnp.prod(sizes, axis=1) - 1).astype(maps.dtype)
    below, ordered = jnp.floor(places), jnp.sort(values, axis=1)
    low, high = (
        jnp.take_along_axis(ordered, where.astype(jnp.int32).T, axis=1).T for where in (below, jnp.ceil(places))
    )
    return (low + (high - low) * (places - below))[..., None, None, None]


def extremes(maps: jax.Array, sizes: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Minimum and maximum, [B, 1, 1, 1] each, of [B, h, w, 1] maps over the pixels of each image."""
    where: dict[str, Any] = {} if sizes is None else {"where": inside(sizes, maps.shape[1:3])}
    low = jnp.min(maps, axis=(1, 2, 3), keepdims=True, **(where and where | {"initial": np.inf}))
    return low, jnp.max(maps, axis=(1, 2, 3), keepdims=True, **(where and where | {"initial": -np.inf}))
