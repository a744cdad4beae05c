"""Scales a mask so that 0.5 is the threshold.

The pairwise term presses all values of a mask together, and leaves their order as it was: a threshold of 0.5 on the
values themselves would cut at random. Each image is scaled by itself. Of a large image, of which a part is in memory,
`of` gives values of all of it: the part is scaled as those would be.
"""

import numpy as np


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
    minimum, maximum = np.percentile(mask if of is None else of, (low, high))
    return np.clip((mask - minimum) / max(maximum - minimum, np.finfo(np.float32).tiny), 0, 1).astype(np.float32)


def as_it_is(mask: np.ndarray, *, of: np.ndarray | None = None) -> np.ndarray:
    """The mask."""
    del of
    return mask


CALIBRATIONS = {"percentiles": between_percentiles, "none": as_it_is}
