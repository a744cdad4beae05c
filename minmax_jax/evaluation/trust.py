"""Reasons not to trust a mask, in words: of one image, or of all images of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.method import DISAGREEMENT, NO_SCORES, SPREAD, Score

MAX_ENTROPY = 0.5  # of the predicted classes, as a share of log C, at which a tile's mask begins to fade
MIN_RANGE = 0.1  # between the 1st and 99th percentile of a soft mask, or the spread of one before its calibration
FOREGROUND_SHARES = (0.001, 0.999)
MAX_DISAGREEMENT = 0.06  # on validation images, masks above it are 7 to 14 points of F1+ worse: docs/predict.md


def find_flags(
    prediction: ImagePrediction,
    *,
    threshold: float,
    scores: Mapping[str, Score] = NO_SCORES,
    background_classes: Sequence[int] = (),
) -> list[str]:
    """What speaks against the mask of an image; empty if nothing does.

    Args:
        prediction: for the image.
        threshold: a pixel is foreground where the mask is at least this.
        scores: of the method, with the limits beyond which they speak against a mask.
        background_classes: those without a region; where one is predicted, the mask is rightly empty.

    Example:
        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation import trust
        >>> mask = np.full((8, 8), 0.6, np.float32)
        >>> trust.find_flags(evaluation.ImagePrediction(0, np.array([0.9, 0.1]), mask, scores={}), threshold=0.5)
        ['the mask is nearly constant']
    """
    is_empty = prediction.predicted in background_classes
    region = "image" if is_empty else "found region"
    flags = [
        score.flag.format(region=region)
        for name, score in scores.items()
        if name in prediction.scores
        and not (is_empty and score.needs_region)
        and _is_suspect(prediction.scores[name], score, prediction)
    ]
    if not is_empty:
        flags += _find_flags_of_region(prediction, threshold)
    if not is_empty and prediction.scores.get(DISAGREEMENT, 0) > MAX_DISAGREEMENT:
        flags.append("mirror images or other sizes of the image have other masks")
    return flags


def _is_suspect(value: float, score: Score, prediction: ImagePrediction) -> bool:
    """Whether a score that has a flag is beyond its limits."""
    if not score.flag:
        return False
    if score.kind == "class":
        return value != prediction.predicted
    scale = np.log(len(prediction.probabilities)) if score.kind == "entropy" else 1
    return not score.low * scale <= value <= score.high * scale


def _find_flags_of_region(prediction: ImagePrediction, threshold: float) -> list[str]:
    """What speaks against a mask that must have a foreground, whatever the method."""
    low, high = np.quantile(prediction.mask, (0.01, 0.99))
    share = np.mean(prediction.mask >= threshold)
    if prediction.scores.get(SPREAD, high - low) < MIN_RANGE:
        return ["the mask is nearly constant"]
    if not FOREGROUND_SHARES[0] <= share <= FOREGROUND_SHARES[1]:
        return [f"the mask covers {100 * share:.1f} % of the image"]
    return []


def find_model_flags(results: Mapping[str, Any]) -> list[str]:
    """What speaks against all masks of a model.

    Args:
        results: content of the run's `results.json`, {} if there is none.
    """
    diagnosis = results.get("diagnosis")
    if diagnosis and not diagnosis["has_evidence"]:
        return ["in the run's swap test, other masks showed the class as well: masks of this model carry no evidence"]
    return []
