"""The pairwise term: a mask may change only where the image does."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from minmax_jax.ops import canvas


def edge_loss(
    probabilities: jax.Array,
    colors: jax.Array,
    *,
    bandwidth: float,
    reach: int,
    sizes: jax.Array | None = None,
) -> jax.Array:
    """Mean over pairs of pixels of |p - q| exp(-|color of p - color of q|^2 / bandwidth).

    The eight neighbours of each pixel at the distance `reach` along rows, columns and diagonals; every pair once.

    Args:
        probabilities: [B, h, w] of the foreground.
        colors: [B, h, w, 3] of the image, in [0, 1].
        bandwidth: squared distance of two colors at which a mask may change.
        reach: in pixels, at least 1.
        sizes: [B, 2] heights and widths of images that fill the upper left corner only; None: all of the mask.

    Returns:
        [B] losses.

    Example:
        A mask that changes between pixels of one colour, and one that changes where black meets white:

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from minmax_jax.refinement import edges
        >>> masks, gray = jnp.array([[[0.0, 1.0]]] * 2), jnp.zeros((1, 2, 3))
        >>> colors = jnp.stack([gray, gray.at[:, 1].set(1.0)])
        >>> print(np.asarray(edges.edge_loss(masks, colors, bandwidth=0.02, reach=1)).round(2))
        [1. 0.]
    """
    total, count = 0.0, 0
    is_valid = None if sizes is None else canvas.inside(sizes, probabilities.shape[1:])[..., 0]
    for here, there in _pairs(probabilities.shape[1:], reach):
        similarity = jnp.exp(-jnp.sum((colors[here] - colors[there]) ** 2, axis=-1) / bandwidth)
        differences = jnp.abs(probabilities[here] - probabilities[there]) * similarity
        if is_valid is None:
            count += differences[0].size
        else:
            counted = is_valid[here] & is_valid[there]
            differences = jnp.where(counted, differences, 0)
            count += jnp.sum(counted, axis=(1, 2))
        total += jnp.sum(differences, axis=(1, 2))
    return total / (max(count, 1) if is_valid is None else jnp.maximum(count, 1))


def _pairs(size: tuple[int, int], reach: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Slices of [B, h, w, ...] arrays: all pixels with a neighbour in one of four directions, and that neighbour."""
    height, width = size
    for down, right in ((0, reach), (reach, 0), (reach, reach), (reach, -reach)):
        # An image smaller than the reach has no pairs; a negative end would count from the other side.
        rows = slice(0, max(0, height - down)), slice(down, height)
        columns = slice(0, max(0, width - abs(right))), slice(abs(right), width)
        here, there = columns if right >= 0 else columns[::-1]
        yield (slice(None), rows[0], here), (slice(None), rows[1], there)
