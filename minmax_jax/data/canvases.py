"""Which canvases the images of a run share, so that few shapes are compiled; see `ops.canvas`."""

import numpy as np

from minmax_jax.data import padding

MAX_CANVASES = 4


def choose(sizes: np.ndarray, *, max_count: int = MAX_CANVASES) -> np.ndarray | None:
    """Shapes with room for all images, with little area beyond them.

    Starts from the shapes that padding makes and joins, again and again, the two whose images then need the least
    additional area.

    Args:
        sizes: [N, 2] heights and widths of images.
        max_count: number of shapes.

    Returns:
        [K, 2] heights and widths in ascending order of area, at most `max_count`; None where padding makes no more
        shapes than that: each then is an array without anything beyond its images.

    Example:
        >>> import numpy as np
        >>> from minmax_jax.data import canvases
        >>> sizes = np.array([[256, 320], [256, 340], [340, 256], [352, 256]])
        >>> print(canvases.choose(sizes, max_count=2).tolist(), canvases.choose(sizes))
        [[256, 352], [352, 256]] None
    """
    shapes, counts = np.unique(padding.padded_sizes(sizes), axis=0, return_counts=True)
    if len(shapes) <= max_count:
        return None
    # Pixels that a shape's images need without anything beyond them do not depend on the choice.
    while len(shapes) > max_count:
        joined = np.maximum(shapes[:, None], shapes)
        areas = counts * np.prod(shapes, axis=1)
        added = np.prod(joined, axis=2) * (counts[:, None] + counts) - areas[:, None] - areas
        np.fill_diagonal(added, np.iinfo(added.dtype).max)
        first, second = np.unravel_index(np.argmin(added), added.shape)
        shapes[first], counts[first] = joined[first, second], counts[first] + counts[second]
        shapes, counts = np.delete(shapes, second, axis=0), np.delete(counts, second)
    shapes = np.unique(shapes, axis=0)
    return shapes[np.argsort(np.prod(shapes, axis=1), kind="stable")]


def assign(sizes: np.ndarray, shapes: np.ndarray | None) -> np.ndarray:
    """The canvas [N, 2] of each image: the smallest with room for it, or, without room or shapes, its padded size.

    Args:
        sizes: [N, 2] heights and widths of images.
        shapes: as of `choose`.
    """
    padded = padding.padded_sizes(sizes)
    if shapes is None:
        return padded
    has_room = (padded[:, None] <= shapes).all(axis=2)
    return np.where(has_room.any(axis=1)[:, None], shapes[np.argmax(has_room, axis=1)], padded)
