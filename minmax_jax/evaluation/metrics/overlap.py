"""Overlap of masks: IoU per image, and IoU, Dice and confusion of the pixels of all images together."""

from collections.abc import Sequence

import numpy as np

from minmax_jax.base import options
from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row, Truth
from minmax_jax.evaluation.image_predictions import ImagePrediction

_COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")


def evaluator(*, threshold: float = 0.5) -> Evaluator:
    """IoU of foreground and background per image, and metrics of all pixels together.

    Args:
        threshold: a pixel is foreground where the soft mask is at least this.

    Returns:
        An evaluator whose rows hold "pixels", the number of pixels of each kind, or None without a true mask.

    Raises:
        OptionError: for a threshold outside of (0, 1).

    Example:
        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation.metrics import overlap
        >>> prediction = evaluation.ImagePrediction(0, None, np.float32([[0.9, 0.8], [0.6, 0.1]]), scores={})
        >>> truth = evaluation.Truth(label=0, mask=np.array([[1, 1], [0, 0]], bool), boxes=np.zeros((0, 4)))
        >>> overlap.evaluator().score(prediction, truth)["pixels"]
        {'true_positives': 2, 'false_positives': 1, 'false_negatives': 0, 'true_negatives': 1}
    """
    options.check_range("threshold", threshold, 1e-6, 1 - 1e-6)
    return Evaluator(score=lambda prediction, truth: {"pixels": _count(prediction, truth, threshold)}, metrics=_metrics)


def _count(prediction: ImagePrediction, truth: Truth, threshold: float) -> dict[str, int] | None:
    if truth.mask is None:
        return None
    mask, true = evaluators.counted_pixels(prediction, truth)
    predicted = mask >= threshold
    both, either = np.count_nonzero(predicted & true), np.count_nonzero(predicted | true)
    false_positives = np.count_nonzero(predicted) - both
    counts = both, false_positives, either - both - false_positives, true.size - either
    return dict(zip(_COUNTS, map(int, counts)))


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    # Images without a true mask have no pixels.
    counts = np.array([[(row["pixels"] or {}).get(name, 0) for name in _COUNTS] for row in rows], float)
    tp, fp, fn, tn = counts.reshape(len(rows), 4).T

    def iou(weights):
        foreground, background = (evaluators.ratio(hit, hit + fp + fn)(weights) for hit in (tp, tn))
        return 100 * (foreground + background) / 2

    def mean_iou(hits):
        with np.errstate(invalid="ignore"):
            return evaluators.mean_of_known(hits / (hits + fp + fn), factor=100)

    values = {
        "iou_foreground": mean_iou(tp),
        "iou_background": mean_iou(tn),
        "micro_f1_foreground": evaluators.ratio(200 * tp, 2 * tp + fp + fn),
        "micro_f1_background": evaluators.ratio(200 * tn, 2 * tn + fp + fn),
        "micro_miou": iou,
        "true_positive_rate": evaluators.ratio(100 * tp, tp + fn),
        "true_negative_rate": evaluators.ratio(100 * tn, tn + fp),
    }
    return {name: Metric(function, "%", "fixed") for name, function in values.items()}
