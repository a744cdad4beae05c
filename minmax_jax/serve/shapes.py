"""The shapes at which the networks are compiled for the page, which does not know its images in advance."""

import numpy as np

from minmax_jax.data import padding
from minmax_jax.runs.predictor import Predictor

_MAX_PIXELS = 1 << 20  # of the images that canvases have room for, where nothing else limits them
# Sides of the largest canvases, as shares of the root of that number: photographs of 4 to 3 and 3 to 2 fit.
_SHORT, _LONG = 0.875, 1.25
_MAX_LENGTH = 4  # long side by short side


def choose(predictor: Predictor, max_pixels: int) -> np.ndarray | None:
    """At most four canvases, landscape and portrait, for images whose shorter side the run limits, and for others.

    Where the run limits the shorter side, they have room for images of up to one by two, and of up to one by four. Else
    they have room for photographs that are reduced to `max_pixels`, for images of half those sides, and for crops.

    Args:
        predictor: of the run.
        max_pixels: of an image after the preprocessing; 0: not limited.

    Returns:
        [K, 2] heights and widths in ascending order of area; None for a method that reads no canvases.
    """
    if not predictor.reads_canvases:
        return None
    max_pixels = max_pixels or _MAX_PIXELS
    root = max_pixels**0.5
    side = min(predictor.preprocessing.max_side or np.inf, _SHORT * root)
    length = min(_MAX_LENGTH * side, _SHORT * _LONG * max_pixels / side)
    half = (min(side, length / 2), length / 2)
    crop_size = predictor.card["crop_size"]
    shapes = {(side, length), (length, side), half, half[::-1]}
    if half[0] == half[1] and predictor.preprocessing.min_side <= min(crop_size) and max(crop_size) < half[0]:
        shapes.add(tuple(crop_size))
    shapes = np.unique(padding.padded_sizes(np.ceil(sorted(shapes)).astype(int)), axis=0)
    return shapes[np.argsort(np.prod(shapes, axis=1), kind="stable")]
