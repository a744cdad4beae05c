"""What a run stands for as one function of images: padding, networks, second stage and its calibration."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from minmax_jax.data import padding, preprocessing
from minmax_jax.errors import OptionError
from minmax_jax.export import calibrations
from minmax_jax.runs.predictor import Predictor

# Images to results by name.
Network = Callable[[jax.Array], dict[str, jax.Array]]

_GREATEST_SIDE = 2048  # Otsu's sums fit into 32 bits
OUTPUTS = ("probabilities", "masks", "foreground_entropy", "background_entropy")  # the last two with a classifier


def create(predictor: Predictor, size: tuple[int, int]) -> Network:
    """The function that a file holds.

    Args:
        predictor: of the run.
        size: (H, W) of the images, preprocessed, for which `check_size` holds.

    Returns:
        [B, H, W, 3] float32 images in [-1, 1] to "probabilities" [B, C], "masks" [B, H, W, 1] and, of methods with a
        classifier, "foreground_entropy" and "background_entropy" [B].

    Raises:
        OptionError: for a run whose masks a CRF refines.
    """
    if predictor.crf_fn is not None:
        raise OptionError("crf=True refines the masks of this run, and no file can hold that. crf=False leaves it out.")
    height, width = size
    padded_size = padding.padded_sizes(size).tolist()
    (above, below), (left, right) = (padding.margins(*sides) for sides in zip(size, padded_size))
    refine = predictor.card["refine"]
    calibrate = calibrations.CALIBRATIONS[refine["calibration"] if refine["enabled"] else "none"]

    def apply(images):
        padded = jnp.pad(images, ((0, 0), (above, below), (left, right), (0, 0)), mode="reflect")
        prediction = predictor.predict(padded)
        masks = calibrate(prediction.masks[:, above : above + height, left : left + width])
        results = {**prediction.scores, "probabilities": prediction.probabilities, "masks": masks}
        return {name: results[name] for name in OUTPUTS if name in results}

    return apply


def check_size(size: tuple[int, int]) -> None:
    """Raises OptionError for a size that no file can have."""
    if len(size) != 2 or not all(preprocessing.LEAST_SIDE <= side <= _GREATEST_SIDE for side in size):
        least, given = preprocessing.LEAST_SIDE, ",".join(map(str, size))
        raise OptionError(f"size={given} must be H,W: two whole numbers of pixels from {least} to {_GREATEST_SIDE}.")
