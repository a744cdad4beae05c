"""Regions of a mask: connected foreground pixels, with place, size and mean value."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from minmax_jax.evaluation import objects


class Region(NamedTuple):
    """A connected region of the foreground.

    Attributes:
        box: (top, left, bottom, right) in pixels, bottom and right exclusive.
        area: in pixels.
        mean_value: mean of the soft mask over the region; the "score" of COCO and the "Mean score" of GeoJSON.
        centroid: (y, x) in pixels, the centre of the first pixel being (0.5, 0.5).
    """

    box: tuple[int, int, int, int]
    area: int
    mean_value: float
    centroid: tuple[float, float]


def find(mask: np.ndarray, *, threshold: float, min_area: int = 1) -> tuple[np.ndarray, list[Region]]:
    """The regions of a soft mask, connected by eight neighbours, in the order of their first pixels along the rows.

    Args:
        mask: [H, W] soft mask.
        threshold: a pixel is foreground where the mask is at least this.
        min_area: regions with fewer pixels are left out.

    Returns:
        [H, W] int32, the number of each pixel's region from 1, 0 elsewhere; and the regions.
    """
    connected = objects.connected(mask >= threshold, min_area=min_area)
    labels, numbers = connected.numbers, range(1, len(connected) + 1)
    means, centroids = ndimage.mean(mask, labels, numbers), ndimage.center_of_mass(labels > 0, labels, numbers)
    found = [
        Region(
            box=tuple(box),
            area=int(area),
            mean_value=float(mean),
            centroid=(float(y) + 0.5, float(x) + 0.5),
        )
        for box, area, mean, (y, x) in zip(connected.boxes.tolist(), connected.areas, means, centroids)
    ]
    return labels, found
