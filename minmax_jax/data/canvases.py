"""Which canvases the images of a run share, so that few shapes are compiled; see `ops.canvas`."""

import numpy as np

from minmax_jax.data import padding

MAX_CANVASES = 4
# A tenth more area takes a tenth more time for each image; a shape less saves 20 to 30 s of compiling in a whole run.
_MAX_ADDED_AREA = 0.1
_MAX_SHAPES = 64  # that are joined pair by pair; of more, sides are rounded up to larger multiples first


def choose(
    sizes: np.ndarray, *, max_count: int = MAX_CANVASES, max_added_area: float = _MAX_ADDED_AREA
) -> np.ndarray | None:
    """Shapes with room for all images, with little area beyond them.

    Starts from the shapes that padding makes and joins, again and again, the two whose images then need the least
    additional area, until they are few and further joining would cost too much of it.

    Args:
        sizes: [N, 2] heights and widths of images.
        max_count: number of shapes.
        max_added_area: share of the area of all padded images that may be added to have fewer shapes than that.

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
    multiple = padding.MULTIPLE
    while len(shapes) > max(_MAX_SHAPES, max_count):
        multiple *= 2
        shapes, members = np.unique(-(-shapes // multiple) * multiple, axis=0, return_inverse=True)
        counts = np.bincount(members.ravel(), counts).astype(int)
    limit = (1 + max_added_area) * np.sum(counts * np.prod(shapes, axis=1))
    while len(shapes) > 1:
        joined = np.maximum(shapes[:, None], shapes)
        areas = counts * np.prod(shapes, axis=1)
        added = np.prod(joined, axis=2) * (counts[:, None] + counts) - areas[:, None] - areas
        np.fill_diagonal(added, np.iinfo(added.dtype).max)
        first, second = np.unravel_index(np.argmin(added), added.shape)
        if len(shapes) <= max_count and areas.sum() + added[first, second] > limit:
            break
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
