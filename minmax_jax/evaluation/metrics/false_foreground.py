"""False foreground share: how much of images without a region is called foreground.

Images of such classes, as normal tissue or an empty field, have no foreground: F1+ is 0 or undefined there. This is
their rule, and they count in no other metric of masks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minmax_jax.base import options
from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row, Truth
from minmax_jax.evaluation.image_predictions import ImagePrediction

NAME = "false_foreground_share"


def evaluator(*, threshold: float = 0.5) -> Evaluator:
    """Mean over the images of classes without a region of the share of their pixels that are called foreground.

    Args:
        threshold: a pixel is foreground where the soft mask is at least this.

    Returns:
        An evaluator whose rows hold a share, None for images of other classes; its summary has percent, and the number
        of images. Of a split without such an image both are left out.

    Raises:
        OptionError: for a threshold outside of (0, 1).
    """
    options.check_range("threshold", threshold, 1e-6, 1 - 1e-6)
    return Evaluator(
        score=lambda prediction, truth: {NAME: _score(prediction, truth, threshold)},
        summarize=_summarize,
        metrics=_metrics,
    )


def _score(prediction: ImagePrediction, truth: Truth, threshold: float) -> float | None:
    if truth.has_region:
        return None
    if truth.ignored is None:
        return float(np.mean(prediction.mask >= threshold))
    counted = prediction.mask_at(truth.ignored.shape)[~truth.ignored]
    return float(np.mean(counted >= threshold)) if counted.size else None


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    shares = [row[NAME] for row in rows]
    if all(share is None for share in shares):
        return {}
    return {NAME: Metric(evaluators.mean_of_known(shares, factor=100.0), "%", "fixed")}


def _summarize(rows: Sequence[Row]) -> dict[str, Any]:
    found = _metrics(rows)
    if not found:
        return {}
    count = sum(row[NAME] is not None for row in rows)
    return {"num_images_without_region": count, NAME: evaluators.once(found[NAME].values, len(rows))}
