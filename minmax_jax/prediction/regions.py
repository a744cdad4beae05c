"""Regions of a mask: connected foreground pixels, with place, size and score."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

_EIGHT = np.ones((3, 3), int)  # neighbours that are connected


class Region(NamedTuple):
    """A connected region of the foreground.

    Attributes:
        box: (top, left, bottom, right) in pixels, bottom and right exclusive.
        area: in pixels.
        score: mean of the soft mask.
        centroid: (y, x) in pixels, the centre of the first pixel being (0.5, 0.5).
    """

    box: tuple[int, int, int, int]
    area: int
    score: float
    centroid: tuple[float, float]


def find(mask: np.ndarray, *, threshold: float, least_area: int = 1) -> tuple[np.ndarray, list[Region]]:
    """The regions of a soft mask, connected by eight neighbours, in the order of their first pixels along the rows.

    Args:
        mask: [H, W] soft mask.
        threshold: a pixel is foreground where the mask is at least this.
        least_area: regions with fewer pixels are left out.

    Returns:
        [H, W] int32, the number of each pixel's region from 1, 0 elsewhere; and the regions.
    """
    labels, count = ndimage.label(mask >= threshold, _EIGHT)
    labels = labels.astype(np.int32)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    if least_area > 1 and count:
        kept = areas >= least_area
        kept[0] = False
        labels = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
        areas, count = np.concatenate([[0], areas[kept]]), int(kept.sum())
    numbers = range(1, count + 1)
    scores, centroids = ndimage.mean(mask, labels, numbers), ndimage.center_of_mass(labels > 0, labels, numbers)
    found = [
        Region(
            box=(rows.start, columns.start, rows.stop, columns.stop),
            area=int(area),
            score=float(score),
            centroid=(float(y) + 0.5, float(x) + 0.5),
        )
        for (rows, columns), area, score, (y, x) in zip(ndimage.find_objects(labels), areas[1:], scores, centroids)
    ]
    return labels, found
