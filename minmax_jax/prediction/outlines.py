"""Outlines of a mask as polygons with holes, in pixels of the image; the corner of the first pixel is (0, 0)."""

from collections.abc import Iterator
import itertools

import contourpy
import numpy as np

Polygon = list[np.ndarray]  # the outer ring, then the holes; [n, 2] (x, y), the last point equal to the first


def find(mask: np.ndarray, *, threshold: float, least_area: float = 0.0, tolerance: float = 0.0) -> Iterator[Polygon]:
    """The polygons of {mask >= threshold}, between pixels by linear interpolation.

    Args:
        mask: [H, W] soft mask.
        threshold: level of the outlines.
        least_area: polygons of less pixels, but for the largest, and holes are left out.
        tolerance: in pixels, how far an outline may move where points are dropped (Douglas and Peucker); 0 keeps all.
    """
    # A margin closes outlines at the border: on the edge of the image, half a pixel from its last pixels.
    padded = np.pad(np.asarray(mask, np.float64), 1, mode="edge")
    margin = np.ones(padded.shape, bool)
    margin[1:-1, 1:-1] = False
    padded[margin] = np.minimum(padded[margin], 2 * threshold - padded[margin])
    coordinates = [np.arange(-1, side + 1) + 0.5 for side in mask.shape]
    generator = contourpy.contour_generator(
        coordinates[1], coordinates[0], padded, fill_type=contourpy.FillType.OuterOffset
    )
    pieces = [
        [points[start:end] for start, end in itertools.pairwise(offsets)]
        for points, offsets in zip(*generator.filled(threshold, np.inf))
    ]
    # Between pixels, an outline encloses less than the pixels: that of a region of `least_area` pixels is kept.
    areas = [abs(ring_area(rings[0])) for rings in pieces]
    least = min(least_area, max(areas, default=0.0))
    for rings, area in zip(pieces, areas):
        if area < max(least, 1e-12):
            continue
        holes = [ring for ring in rings[1:] if abs(ring_area(ring)) >= max(least_area, 1e-12)]
        polygon = [_simplify(ring, tolerance) for ring in (rings[0], *holes)]
        yield [ring for number, ring in enumerate(polygon) if number == 0 or len(ring) >= 4]


def ring_area(ring: np.ndarray) -> float:
    """Signed area of a closed ring [n, 2]."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


def polygon_area(polygon: Polygon) -> float:
    """Area without the holes, in pixels."""
    return abs(ring_area(polygon[0])) - sum(abs(ring_area(ring)) for ring in polygon[1:])


def _simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """A closed ring of at least four points, by Douglas and Peucker from two points that are far apart."""
    if tolerance <= 0 or len(ring) <= 5:
        return ring
    far = int(np.argmax(np.sum((ring[:-1] - ring[0]) ** 2, axis=1)))
    kept = np.zeros(len(ring), bool)
    kept[[0, far, -1]] = True
    pending = [(0, far), (far, len(ring) - 1)]
    while pending:
        start, end = pending.pop()
        if end - start < 2:
            continue
        first, chord = ring[start], ring[end] - ring[start]
        between, length = ring[start + 1 : end] - first, np.hypot(*chord)
        if length > 0:
            distances = np.abs(chord[0] * between[:, 1] - chord[1] * between[:, 0]) / length
        else:
            distances = np.hypot(*between.T)
        farthest = int(np.argmax(distances))
        if distances[farthest] > tolerance:
            middle = start + 1 + farthest
            kept[middle] = True
            pending += [(start, middle), (middle, end)]
    return ring[kept] if kept.sum() >= 4 else ring
