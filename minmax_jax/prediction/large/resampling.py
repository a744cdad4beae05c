"""A mask at another size, some rows at a time."""

from collections.abc import Iterator
import itertools

import numpy as np

from minmax_jax.prediction.large.disk_arrays import DiskArray

MAX_PIXELS = 1 << 22  # in memory, of several bytes each, unless one row has more


def bands(height: int, width: float) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of bands of an image, each of which fits in memory."""
    rows = max(1, int(MAX_PIXELS / width))
    return itertools.pairwise([*range(0, height, rows), height])


def resample(mask: DiskArray | np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yields bands of rows, float32 [n, W], of a mask at another (height, width).

    Bilinear between the centres of pixels, as images are resized; beyond the outermost centres, their values.
    """
    (height, width), ratio = mask.shape, mask.shape[0] / size[0]
    if (height, width) == tuple(size):
        yield from (mask[top:bottom, :].astype(np.float32) for top, bottom in bands(height, width))
        return
    of_rows, of_columns = _neighbours(height, size[0]), _neighbours(width, size[1])
    for top, bottom in bands(size[0], max(size[1], width * ratio)):
        first, second, share = (values[top:bottom] for values in of_rows)
        start = first[0]
        rows = mask[start : second[-1] + 1, :].astype(np.float32)
        yield _mix(_mix(rows, first - start, second - start, share).T, *of_columns).T


def _mix(rows: np.ndarray, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    mixed = rows[first]
    return mixed + share[:, None] * (rows[second] - mixed)


def _neighbours(length: int, new_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each new place the two old ones next to it, and the share of the second."""
    places = np.clip((np.arange(new_length) + 0.5) * (length / new_length) - 0.5, 0, length - 1)
    first = np.minimum(places.astype(int), max(length - 2, 0))
    return first, np.minimum(first + 1, length - 1), (places - first).astype(np.float32)
