"""Objects of masks: connected regions, which of two masks overlap, and how far they are from each other."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from scipy import ndimage

_EIGHT = np.ones((3, 3), int)  # neighbours that are connected


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects of an image.

    Attributes:
        numbers: [H, W] int32, the number of each pixel's object, from 1 to K without gaps, 0 elsewhere.
        areas: [K] in pixels.
    """

    numbers: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.areas)

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """[K, 4] (top, left, bottom, right) in pixels, bottom and right exclusive."""
        found = [(y.start, x.start, y.stop, x.stop) for y, x in ndimage.find_objects(self.numbers)]
        return np.array(found, int).reshape(-1, 4)

    @functools.cached_property
    def outlines(self) -> Sequence[np.ndarray]:
        """[n, 2] pixels (y, x) of each object with a neighbour, of four, outside of it; beyond the image is outside."""
        padded = np.pad(self.numbers, 1)
        inner = padded[1:-1, 1:-1]
        neighbours = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
        is_edge = (inner > 0) & np.any([inner != neighbour for neighbour in neighbours], axis=0)
        pixels = np.argwhere(is_edge)
        numbers = self.numbers[is_edge]
        order = np.argsort(numbers, kind="stable")
        return np.split(pixels[order], np.cumsum(np.bincount(numbers, minlength=len(self) + 1)[1:-1]))


def renumber(numbers: np.ndarray, *, min_area: int = 1) -> Objects:
    """The objects of at least `min_area` pixels in [H, W] numbers, 0 for no object, in the order of their numbers."""
    areas = np.bincount(numbers.ravel())
    is_kept = areas >= min_area
    is_kept[0] = False
    return Objects(np.where(is_kept, np.cumsum(is_kept, dtype=np.int32), 0)[numbers], areas[is_kept])


class Outline(NamedTuple):
    """The outline of a mask.

    Attributes:
        pixels: [H, W] bool, the pixels of the mask with a neighbour, of four, outside of it; what is beyond the image
            is outside.
        distances: [H, W] of each pixel to the nearest of these, in pixels.
    """

    pixels: np.ndarray
    distances: np.ndarray


def outline(mask: np.ndarray) -> Outline:
    """The outline of a mask [H, W] bool that has a foreground."""
    pixels = mask & ~ndimage.binary_erosion(mask)
    return Outline(pixels, ndimage.distance_transform_edt(~pixels))


def connected(mask: np.ndarray, *, min_area: int = 1) -> Objects:
    """Regions [H, W] bool, connected by eight neighbours, in the order of their first pixels along the rows.

    Example:
        Two objects: pixels that touch at a corner belong together.

        >>> import numpy as np
        >>> from minmax_jax.evaluation import objects
        >>> found = objects.connected(np.array([[1, 0, 0, 0], [0, 1, 0, 1]], bool))
        >>> len(found), found.areas.tolist(), found.boxes.tolist()
        (2, [2, 1], [[0, 0, 2, 2], [1, 3, 2, 4]])
    """
    return renumber(ndimage.label(mask, _EIGHT)[0], min_area=min_area)


def overlaps(first: Objects, second: Objects) -> np.ndarray:
    """[K, L] number of pixels that each pair of objects shares."""
    shape = len(first) + 1, len(second) + 1
    pairs = first.numbers.ravel().astype(np.int64) * shape[1] + second.numbers.ravel()
    return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)[1:, 1:]


def hausdorff(first: Objects, second: Objects, pair: tuple[int, int]) -> float:
    """Hausdorff distance in pixels: the maximum distance from a pixel of one object to the nearest of the other.

    Args:
        first: objects of an image.
        second: others of that image.
        pair: index of an object of `first`, and of one of `second`, from 0.
    """
    i, j = pair
    return max(_farthest(first, i, second, j), _farthest(second, j, first, i))


def nearest(first: Objects, second: Objects, index: int) -> float:
    """The minimum Hausdorff distance between an object of `first` and any of `second`, of which there must be one.

    Args:
        first: objects of an image.
        second: others of that image, at least one.
        index: of an object of `first`, from 0.

    Returns:
        Distance in pixels.
    """
    # Lower bounds: some pixel on a side of one box is at least as far from the other object as from its box there.
    bounds = np.abs(second.boxes - first.boxes[index]).max(axis=1)
    minimum = np.inf
    for candidate in np.argsort(bounds, kind="stable"):
        if bounds[candidate] >= minimum:
            break
        minimum = min(minimum, hausdorff(first, second, (index, candidate)))
    return minimum


def _farthest(objects: Objects, i: int, others: Objects, j: int) -> float:
    """The maximum distance from a pixel of object i to the nearest of object j.

    Outside of j's box a step away from the box leads farther from j, so that the farthest pixel there is on i's
    outline. The nearest pixel of j is on its outline.
    """
    top, left, bottom, right = others.boxes[j]
    window = slice(top, bottom), slice(left, right)
    inside = np.argwhere((objects.numbers[window] == i + 1) & (others.numbers[window] != j + 1)) + (top, left)
    pixels = np.concatenate([objects.outlines[i], inside])
    pixels = pixels[others.numbers[tuple(pixels.T)] != j + 1]
    if not len(pixels):
        return 0.0
    from scipy.spatial import distance  # Here, because it takes a tenth of a second to import.

    return distance.directed_hausdorff(pixels, others.outlines[j])[0]  # stops early, which a k-d tree does not
