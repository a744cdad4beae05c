"""Declared priors: where the second stage takes its foreground from, in place of the first stage's masks.

Class labels need not point at objects: the grade of a colon gland can be read from the tissue around it. A prior says
what an object looks like. It is knowledge from outside of the labels, so results with it are reported apart.
"""

import heapq

import numpy as np
from scipy import ndimage

from minmax_jax.data import stains

_STRIDE = 2  # of the prior's map; the sizes below are pixels of it, found on GlaS at half its size
_SIGMA = 1.5  # a wall of nuclei without its gaps, and the scale of single nuclei
_WINDOW = 5.0  # the neighbourhood in which nuclei are speckled or not
_MARGIN = 24  # mirrored border, in which glands that the image cuts are closed
_SHARES = (0.3, 0.7)  # minimum and maximum share of the foreground


def gland_map(image: np.ndarray) -> np.ndarray:
    """H&E images: glands are enclosed by haematoxylin, and not speckled with single nuclei as stroma is.

    The sum of two maps, each with mean 0 and deviation 1: haematoxylin, blurred, with its holes filled; and minus the
    local variance of the haematoxylin that the blur takes away. It is scaled so that 0.5 is its Otsu threshold, among
    the thresholds that leave 30 to 70 % as foreground. No mask and no label is used.

    Args:
        image: [H, W, 3] uint8, H and W even.

    Returns:
        [H, W] float32 in [0, 1].

    Example:
        An image of one colour has no glands:

        >>> import numpy as np
        >>> from minmax_jax.refinement import priors
        >>> found = priors.gland_map(np.full((32, 48, 3), 200, np.uint8))
        >>> found.shape, float(found.min()), float(found.max())
        ((32, 48), 0.5, 0.5)
    """
    density = stains.optical_density(image)
    density = density.reshape(len(image) // _STRIDE, _STRIDE, -1, _STRIDE, 3).mean(axis=(1, 3))
    haematoxylin = stains.concentrations(density, stains.REFERENCE.vectors)[..., 0]
    blurred = ndimage.gaussian_filter(haematoxylin, _SIGMA)
    speckle = ndimage.gaussian_filter((haematoxylin - blurred) ** 2, _WINDOW)
    enclosed = fill_holes(np.pad(blurred, _MARGIN, mode="symmetric"))[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    values = _scale_at_threshold(_standardize(enclosed) - _standardize(speckle))
    return np.repeat(np.repeat(values, _STRIDE, axis=0), _STRIDE, axis=1)


def _standardize(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 1e-6)


def fill_holes(heights: np.ndarray) -> np.ndarray:
    """Raises each place of [H, W] to the minimum height over which water flows from it to the border (8 neighbours).

    Priority-Flood, Barnes, Lehman and Mulla, Computers & Geosciences 2014.

    Example:
        Water stays in the hole up to the lowest place of its wall:

        >>> import numpy as np
        >>> from minmax_jax.refinement import priors
        >>> priors.fill_holes(np.array([[5, 5, 5], [5, 1, 4], [5, 5, 5]]))[1].tolist()
        [5, 4, 4]
    """
    height, width = heights.shape
    filled, done = heights.copy(), np.zeros((height, width), bool)
    done[[0, -1], :] = done[:, [0, -1]] = True
    queue = [(filled[place], *place) for place in zip(*map(np.ndarray.tolist, np.nonzero(done)))]
    heapq.heapify(queue)
    while queue:
        level, row, column = heapq.heappop(queue)
        for y in range(max(row - 1, 0), min(row + 2, height)):
            for x in range(max(column - 1, 0), min(column + 2, width)):
                if not done[y, x]:
                    done[y, x] = True
                    filled[y, x] = max(filled[y, x], level)
                    heapq.heappush(queue, (filled[y, x], y, x))
    return filled


def _scale_at_threshold(values: np.ndarray) -> np.ndarray:
    """[0, 1], with the Otsu threshold among the allowed shares at 0.5; constant values become 0.5."""
    ordered = np.sort(values, axis=None)
    if ordered[0] == ordered[-1]:
        return np.full(values.shape, 0.5, np.float32)
    below = np.arange(int((1 - _SHARES[1]) * ordered.size), int((1 - _SHARES[0]) * ordered.size))
    above, sums = ordered.size - below, np.cumsum(ordered)
    means = sums[below - 1] / below, (sums[-1] - sums[below - 1]) / above
    threshold = ordered[below[np.argmax(below * above * (means[0] - means[1]) ** 2)]]
    return np.interp(values, (ordered[0], threshold, ordered[-1]), (0, 0.5, 1)).astype(np.float32)


PRIORS = {"glands": gland_map}
