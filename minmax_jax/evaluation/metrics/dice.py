"""Dice of the foreground (F1+) and of the background (F1-), per image, and of the all-foreground baseline."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minmax_jax.base import options
from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row, Truth
from minmax_jax.evaluation.image_predictions import ImagePrediction

_COLUMNS = ("f1_foreground", "f1_background", "all_ones_f1_foreground", "all_ones_f1_background")


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    """2 |P and Q| / (|P| + |Q|) of two masks of one shape; NaN where both are empty.

    Example:
        Two pixels each, one of them shared: 2 * 1 / (2 + 2).

        >>> import numpy as np
        >>> from minmax_jax.evaluation.metrics import dice
        >>> float(dice.dice(np.array([True, True, False]), np.array([False, True, True])))
        0.5
    """
    total = np.count_nonzero(predicted) + np.count_nonzero(true)
    if total == 0:
        return float("nan")
    return 2 * np.count_nonzero(predicted & true) / total


def mean_score(scores: np.ndarray) -> float:
    """Mean of [N] scores of images; those that are NaN, of two empty masks, do not count."""
    return evaluators.once(evaluators.mean_of_known(scores), len(scores))


def evaluator(*, threshold: float = 0.5) -> Evaluator:
    """F1+ and F1- of images that have a true mask, compared at the true mask's resolution, without ignored pixels.

    Args:
        threshold: a pixel is foreground where the soft mask is at least this.

    Returns:
        An evaluator whose rows hold shares (None without a true mask, NaN for 0 / 0) and whose summary holds percent.
        Images with NaN, whose two masks are both empty, do not count in the summary.

    Raises:
        OptionError: for a threshold outside of (0, 1).

    Example:
        Of four pixels, the mask has the two true ones and one more: 2 * 2 / (3 + 2), and 2 * 1 / (1 + 2) of the
        background.

        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation.metrics import dice
        >>> prediction = evaluation.ImagePrediction(0, None, np.float32([[0.9, 0.8], [0.6, 0.1]]), scores={})
        >>> truth = evaluation.Truth(label=0, mask=np.array([[1, 1], [0, 0]], bool), boxes=np.zeros((0, 4)))
        >>> row = dice.evaluator(threshold=0.5).score(prediction, truth)
        >>> [round(float(row[name]), 2) for name in ("f1_foreground", "f1_background")]
        [0.8, 0.67]
    """
    options.check_range("threshold", threshold, 1e-6, 1 - 1e-6)
    return Evaluator(
        score=lambda prediction, truth: _score(prediction, truth, threshold),
        summarize=_summarize,
        metrics=_metrics,
    )


def _score(prediction: ImagePrediction, truth: Truth, threshold: float) -> Row:
    if truth.mask is None:
        return dict.fromkeys(_COLUMNS)
    mask, true = evaluators.counted_pixels(prediction, truth)
    predicted = mask >= threshold
    everything = np.ones_like(true)
    return {
        "f1_foreground": dice(predicted, true),
        "f1_background": dice(~predicted, ~true),
        "all_ones_f1_foreground": dice(everything, true),
        "all_ones_f1_background": dice(~everything, ~true),
    }


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    def mean(column):
        return evaluators.mean_of_known([row[column] for row in rows], factor=100.0)

    return {name: Metric(mean(name), "%", "fixed") for name in ("f1_foreground", "f1_background")}


def _summarize(rows: Sequence[Row]) -> dict[str, Any]:
    with_mask = [row for row in rows if row["f1_foreground"] is not None]

    def percent(column):
        return 100 * mean_score(np.array([row[column] for row in with_mask], float))

    return {
        "num_images_with_mask": len(with_mask),
        "f1_foreground": percent("f1_foreground"),
        "f1_background": percent("f1_background"),
        "baselines": {
            "all_ones": {
                "f1_foreground": percent("all_ones_f1_foreground"),
                "f1_background": percent("all_ones_f1_background"),
            }
        },
    }
