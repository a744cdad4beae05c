"""Masks of regions, window by window.

A pixel is in a polygon if its centre is; of centres on an edge, those on the left and upper edges are inside.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.data.importing.regions import Box, Drawing, Region

_MAX_OBJECTS = 65535  # of an image: their numbers are stored in 16 bits


def draw(drawing: Drawing, box: Box, size: tuple[int, int]) -> np.ndarray:
    """The foreground of a window of the image, [h, w] bool.

    Args:
        drawing: with `has_mask`.
        box: the window, in pixels of the image.
        size: (h, w) that it is drawn at.

    Returns:
        The foreground; with ignored regions uint8, where `dataset.IGNORED` marks their pixels.
    """
    foreground = _unite(drawing.regions, box, size)
    if not drawing.ignored:
        return foreground
    return np.where(_unite(drawing.ignored, box, size), dataset.IGNORED, foreground).astype(np.uint8)


def number_objects(drawing: Drawing, size: tuple[int, int]) -> np.ndarray:
    """[H, W] uint16, the number of each pixel's object, from 1; of objects that overlap the later one counts.

    Raises:
        DataError: for a region of several objects, or for more objects than 16 bits can number.
    """
    if any(region.is_crowd for region in drawing.regions):
        raise dataset.DataError("it has a region of several objects (iscrowd), which instances cannot number.")
    if len(drawing.regions) > _MAX_OBJECTS:
        raise dataset.DataError(f"it has {len(drawing.regions)} objects; at most {_MAX_OBJECTS} can be stored.")
    objects = np.zeros(size, np.uint16)
    for number, region in enumerate(drawing.regions, 1):
        for rows, columns, inside in _pieces(region, (0, 0, *size), size):
            objects[rows, columns][inside] = number
    objects[_unite(drawing.ignored, (0, 0, *size), size)] = 0
    found, numbers = np.unique(objects[objects > 0], return_inverse=True)  # some may be hidden by others
    del found
    objects[objects > 0] = numbers + 1
    return objects


def _unite(regions: Iterable[Region], box: Box, size: tuple[int, int]) -> np.ndarray:
    covered = np.zeros(size, bool)
    for region in regions:
        for rows, columns, inside in _pieces(region, box, size):
            covered[rows, columns] |= inside
    return covered


def _pieces(region: Region, box: Box, size: tuple[int, int]) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yields parts of a window and which of their pixels are in the region."""
    top, left, bottom, right = region.box
    if top >= box[2] or left >= box[3] or bottom <= box[0] or right <= box[1]:
        return
    start, step = np.array(box[:2]), (np.array(box[2:]) - box[:2]) / size
    if region.pixels is not None:
        pixels = region.pixels()
        rows, columns = (
            np.clip((start[axis] + (np.arange(size[axis]) + 0.5) * step[axis]).astype(int), 0, pixels.shape[axis] - 1)
            for axis in (0, 1)
        )
        yield slice(None), slice(None), pixels[np.ix_(rows, columns)]
    for rings in region.polygons:
        scaled = [(ring[:, ::-1] - start) / step for ring in rings]  # (y, x)
        points = np.concatenate(scaled)
        first = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
        last = np.clip(np.ceil(points.max(axis=0)), 0, size).astype(int)
        if (first < last).all():
            yield slice(first[0], last[0]), slice(first[1], last[1]), _fill(scaled, first, last)


def _fill(rings: Iterable[np.ndarray], first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Which pixels of a window have their centre inside an odd number of rings [N, 2] of (y, x).

    In each row whose centre it spans, an edge changes that for all pixels right of it. Unlike this, pycocotools rounds
    vertices, by where the window begins, and takes memory by the length of edges.
    """
    height, width = (last - first).tolist()
    places = []
    for ring in rings:
        (y, x), (next_y, next_x) = (ring - first).T, (np.roll(ring, -1, axis=0) - first).T
        top = np.clip(np.ceil(np.minimum(y, next_y) - 0.5), 0, height).astype(int)
        counts = np.clip(np.ceil(np.maximum(y, next_y) - 0.5), 0, height).astype(int) - top
        edge = np.repeat(np.arange(len(ring)), counts)
        rows = np.arange(len(edge)) + np.repeat(top - np.cumsum(counts) + counts, counts)
        crossing = x[edge] + (rows + 0.5 - y[edge]) / (next_y - y)[edge] * (next_x - x)[edge]
        places.append(rows * (width + 1) + np.clip(np.ceil(crossing - 0.5), 0, width).astype(int))
    crossings = np.bincount(np.concatenate(places), minlength=height * (width + 1)).reshape(height, width + 1)
    return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
