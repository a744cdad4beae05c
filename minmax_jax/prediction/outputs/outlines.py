"""Outlines of pixels along their edges; the corner of the first pixel is (0, 0).

A part is a set of pixels that are connected by their edges. Its outline is one outer ring and a ring around each hole.
No ring crosses or touches itself: where pixels meet at a corner only, rings are split at that corner.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import shapely

Ring = np.ndarray  # [n, 2] int (x, y), the last point equal to the first; counter-clockwise by the sign of its area


class Part(NamedTuple):
    """The outline of pixels that are connected by their edges.

    Attributes:
        shell: the outer ring, whose area is positive.
        holes: rings, whose areas are negative; two rings may share single corners.
        area: number of pixels.
    """

    shell: Ring
    holes: list[Ring]
    area: int


def find(bands: Iterable[np.ndarray], *, max_corners: int | None = None) -> list[Part] | None:
    """The outlines of all parts of a mask.

    Args:
        bands: [n, W] bool, the rows of the mask from top to bottom; one band is in memory.
        max_corners: of the outlines, for which there is memory.

    Returns:
        The parts; None if there are more corners.

    Example:
        Three pixels around a corner, in one band; points are (x, y):

        >>> import numpy as np
        >>> from minmax_jax.prediction.outputs import outlines
        >>> (part,) = outlines.find([np.array([[1, 1], [1, 0]], bool)])
        >>> part.area, part.holes, sorted(map(tuple, part.shell[:-1].tolist()))
        (3, [], [(0, 0), (0, 2), (1, 1), (1, 2), (2, 0), (2, 1)])
    """
    corners = _find_corners(bands, max_corners)
    return None if corners is None else _assign(list(_rings(corners)))


def area(ring: Ring) -> int:
    """Signed area of a closed ring."""
    x, y = ring[:, 0], ring[:, 1]
    return int(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) // 2


def _find_corners(bands: Iterable[np.ndarray], maximum: int | None) -> np.ndarray | None:
    """[N, 5] int64 corners of the outlines: y, x, whether edges lead right and down, and the one along the row starts.

    A corner has one edge along its row and one along its column. Where two pixels meet at a corner only, there are two.
    """
    found, count, top, above = [], 0, 0, None
    for band in bands:
        above = np.zeros((1, band.shape[1]), bool) if above is None else above
        found.append(_corners_of_rows(np.concatenate([above, band]), top))
        count, top, above = count + len(found[-1]), top + len(band), band[-1:]
        if maximum is not None and count > maximum:
            return None
    if above is not None:
        found.append(_corners_of_rows(np.concatenate([above, np.zeros_like(above)]), top))
    return np.concatenate([np.zeros((0, 5), np.int64), *found])


def _corners_of_rows(rows: np.ndarray, top: int) -> np.ndarray:
    """Corners between the rows; the first of them is at the height `top`."""
    padded = np.pad(rows, [(0, 0), (1, 1)])
    pixels = [padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]]
    count = np.sum(pixels, axis=0, dtype=np.uint8)
    is_double = (count == 2) & (pixels[0] == pixels[3])
    found = []
    # Of a single corner, the pixel that differs from the three others is the one that its edges enclose.
    for index, pixel in enumerate(pixels):
        is_single = ((count == 1) & pixel) | ((count == 3) & ~pixel)
        y, x = np.nonzero(is_single | (is_double & pixel))
        is_right, is_down = index % 2, index // 2
        # An outline has its pixels on the left, seen in the direction of the y axis: it goes right above them.
        is_above_foreground = padded[y + 1, x + is_right]
        leaves = is_above_foreground == bool(is_right)
        found.append(np.stack([y + top, x, np.full_like(y, is_right), np.full_like(y, is_down), leaves], axis=1))
    return np.concatenate(found)


def _rings(corners: np.ndarray) -> Iterator[Ring]:
    """Follows edges from corner to corner: along a row, then along a column."""
    y, x, is_right, is_down, leaves = corners.T
    across, down = _pairs(np.lexsort([is_right, x, y])), _pairs(np.lexsort([is_down, y, x]))
    after = np.where(leaves, across, down).tolist()
    places, pending = (x * (y.max(initial=0) + 1) + y).tolist(), np.ones(len(corners), bool).tolist()
    for start in np.nonzero(leaves)[0].tolist():
        if not pending[start]:
            continue
        ring, corner = [], start
        while pending[corner]:
            pending[corner] = False
            ring.append(corner)
            corner = after[corner]
        for simple in _split(ring, places):
            yield np.stack([x[simple], y[simple]], axis=1)


def _pairs(order: np.ndarray) -> np.ndarray:
    """[N] the corner at the other end of an edge; in the order of corners along a line, every other gap is an edge."""
    other = np.empty_like(order)
    other[order[0::2]], other[order[1::2]] = order[1::2], order[0::2]
    return other


def _split(ring: list[int], places: list[int]) -> Iterator[list[int]]:
    """Closed rings that come to no place twice."""
    if len({places[corner] for corner in ring}) == len(ring):
        yield [*ring, ring[0]]
        return
    path, index = [], {}  # the corners since the start, and where a place is among them
    for corner in ring:
        place = places[corner]
        if place in index:
            first = index[place]
            yield [*path[first:], path[first]]
            for left in path[first:]:
                del index[places[left]]
            del path[first:]
        index[place] = len(path)
        path.append(corner)
    yield [*path, path[0]]


def _assign(rings: list[Ring]) -> list[Part]:
    """Parts from rings: a hole belongs to the smallest outer ring around it."""
    areas = [area(ring) for ring in rings]
    shells = [(ring, size) for ring, size in zip(rings, areas) if size > 0]
    holes = [(ring, size) for ring, size in zip(rings, areas) if size < 0]
    parts: list[list] = [[] for _ in shells]
    for (ring, size), owner in zip(holes, _owners([ring for ring, _ in holes], shells)):
        parts[owner].append((ring, size))
    return [
        Part(shell, [ring for ring, _ in inner], size + sum(less for _, less in inner))
        for (shell, size), inner in zip(shells, parts)
    ]


def _owners(holes: list[Ring], shells: list[tuple[Ring, int]]) -> np.ndarray:
    """[number of holes] the index of the shell of each."""
    if len(shells) == 1 or not holes:
        return np.zeros(len(holes), int)
    polygons = shapely.polygons([shapely.linearrings(ring) for ring, _ in shells])
    shapely.prepare(polygons)
    # A point of the pixel to the lower right of the first corner along the rows, which is inside.
    first = np.array([ring[np.lexsort([ring[:, 0], ring[:, 1]])[0]] for ring in holes]) + 0.5
    inside, around = shapely.STRtree(polygons).query(shapely.points(first))
    contains = shapely.contains_xy(polygons[around], *first[inside].T)
    inside, around = inside[contains], around[contains]
    order = np.lexsort([-np.array([size for _, size in shells])[around], inside])
    owners = np.zeros(len(holes), int)
    owners[inside[order]] = around[order]  # the last one is the smallest
    return owners
