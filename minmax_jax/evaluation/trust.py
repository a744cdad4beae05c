"""Reasons not to trust a mask, in words: of one image, or of all images of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.minmax import inference

# Shares of log C: the foreground should identify the class, the background should not.
GREATEST_FOREGROUND_ENTROPY, LEAST_BACKGROUND_ENTROPY = 0.5, 0.5
LEAST_RANGE = 0.1  # between the 1st and 99th percentile of a soft mask, or the spread of one before its calibration
FOREGROUND_SHARES = (0.001, 0.999)
GREATEST_DISAGREEMENT = 0.06  # on validation images, masks above it are 7 to 14 points of F1+ worse: docs/predict.md


def find_flags(prediction: ImagePrediction, *, threshold: float, background_classes: Sequence[int] = ()) -> list[str]:
    """What speaks against the mask of an image; empty if nothing does.

    Args:
        prediction: for the image.
        threshold: a pixel is foreground where the mask is at least this.
        background_classes: those without a region; where one is predicted, the mask is rightly empty.
    """
    scores, uniform = prediction.scores, np.log(len(prediction.probabilities))
    flags, is_empty = [], prediction.predicted in background_classes
    if "foreground_entropy" in scores and scores["foreground_entropy"] > GREATEST_FOREGROUND_ENTROPY * uniform:
        what = "image" if is_empty else "found region"
        flags.append(f"the {what} does not identify the class (foreground entropy is high)")
    if not is_empty:
        flags += _find_flags_of_region(prediction, threshold)
    if scores.get("localizer_class", prediction.predicted) != prediction.predicted:
        flags.append("localizer and classifier name different classes")
    if not is_empty and scores.get(inference.DISAGREEMENT, 0) > GREATEST_DISAGREEMENT:
        flags.append("mirror images or other sizes of the image have other masks")
    return flags


def _find_flags_of_region(prediction: ImagePrediction, threshold: float) -> list[str]:
    """What speaks against a mask that must have a foreground."""
    scores, uniform, flags = prediction.scores, np.log(len(prediction.probabilities)), []
    if "background_entropy" in scores and scores["background_entropy"] < LEAST_BACKGROUND_ENTROPY * uniform:
        flags.append("the rest of the image identifies a class as well (background entropy is low)")
    low, high = np.quantile(prediction.mask, (0.01, 0.99))
    share = np.mean(prediction.mask >= threshold)
    if scores.get(inference.SPREAD, high - low) < LEAST_RANGE:
        flags.append("the mask is nearly constant")
    elif not FOREGROUND_SHARES[0] <= share <= FOREGROUND_SHARES[1]:
        flags.append(f"the mask covers {100 * share:.1f} % of the image")
    return flags


def find_model_flags(results: Mapping[str, Any]) -> list[str]:
    """What speaks against all masks of a model.

    Args:
        results: content of the run's `results.json`, {} if there is none.
    """
    diagnosis = results.get("diagnosis")
    if diagnosis and not diagnosis["has_evidence"]:
        return ["in the run's swap test, other masks showed the class as well: masks of this model carry no evidence"]
    return []
