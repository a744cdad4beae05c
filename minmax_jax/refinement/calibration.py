"""Scales a mask so that 0.5 is the threshold.

The pairwise term presses all values of a mask together, and leaves their order as it was: a threshold of 0.5 on the
values themselves would cut at random. Each image is scaled by itself. Of a large image, of which a part is in memory,
`of` gives values of all of it: the part is scaled as those would be.
"""

import numpy as np

_BINS = 256


def between_percentiles(
    mask: np.ndarray, *, of: np.ndarray | None = None, low: float = 5.0, high: float = 95.0
) -> np.ndarray:
    """The mask with its `low` percentile at 0 and its `high` at 1, cut off there; a constant one becomes 0.

    Args:
        mask: [H, W] soft mask.
        of: values that the percentiles are taken of; None: those of the mask.
        low: percentile that becomes 0.
        high: percentile that becomes 1.

    Returns:
        [H, W] float32 in [0, 1].

    Example:
        >>> import numpy as np
        >>> from minmax_jax.refinement import calibration
        >>> mask = np.linspace(0.4, 0.6, 21).reshape(3, 7)
        >>> scaled = calibration.between_percentiles(mask)
        >>> [round(float(value), 2) for value in (scaled.min(), np.median(scaled), scaled.max())]
        [0.0, 0.5, 1.0]
    """
    least, greatest = np.percentile(mask if of is None else of, (low, high))
    return np.clip((mask - least) / max(greatest - least, np.finfo(np.float32).tiny), 0, 1).astype(np.float32)


def at_otsu(mask: np.ndarray, *, of: np.ndarray | None = None) -> np.ndarray:
    """The [H, W] mask with its Otsu threshold at 0.5, its least value at 0 and its greatest at 1.

    Otsu, 1979: the threshold with the greatest variance between the two groups. A constant mask becomes 0.
    """
    # In float64, 256 bins fit between any two values of float32.
    values = np.asarray(mask if of is None else of, np.float64)
    least, greatest = float(np.min(values)), float(np.max(values))
    if not least < greatest:
        return np.zeros(mask.shape, np.float32)
    threshold = _otsu_threshold(values, least, greatest)
    return np.interp(mask, (least, threshold, greatest), (0, 0.5, 1)).astype(np.float32)


def _otsu_threshold(mask: np.ndarray, least: float, greatest: float) -> float:
    counts, edges = np.histogram(mask, _BINS, (least, greatest))
    centers = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * centers)[:-1]
    above, total = mask.size - below, np.sum(counts * centers)
    variances = below * above * (sums / below - (total - sums) / above) ** 2  # first and last bin are never empty
    return edges[1 + int(np.argmax(variances))]


def as_it_is(mask: np.ndarray, *, of: np.ndarray | None = None) -> np.ndarray:
    """The mask."""
    del of
    return mask


CALIBRATIONS = {"percentiles": between_percentiles, "otsu": at_otsu, "none": as_it_is}
