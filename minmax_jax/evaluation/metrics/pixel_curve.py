"""PxAP and the best threshold: the soft masks of all images at all thresholds, from integer histograms.

Source of PxAP: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right" (CVPR 2020).
"""

from collections.abc import Sequence

import numpy as np

from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row, Truth
from minmax_jax.evaluation.image_predictions import ImagePrediction

NUM_BINS = 1000  # a mask value m counts as floor(1000 m) / 1000, and 1 as 0.999
_CALIBRATION_BINS = 10
_COLUMN = "histogram"


def histogram(mask: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[2, NUM_BINS] uint32, number of background and of foreground pixels with each mask value.

    Args:
        mask: [n] values of soft masks, in [0, 1].
        true: [n] bool, whether a pixel is foreground in the true mask.

    Example:
        >>> import numpy as np
        >>> from minmax_jax.evaluation.metrics import pixel_curve
        >>> background, foreground = pixel_curve.histogram(np.array([0.5, 0.9, 0.9]), np.array([False, True, True]))
        >>> int(background[500]), int(foreground[900])
        (1, 2)
    """
    bins = np.minimum((np.asarray(mask) * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bins + NUM_BINS * true.astype(np.int64), minlength=2 * NUM_BINS)
    return counts.reshape(2, NUM_BINS).astype(np.uint32)  # rows keep it, of thousands of images


def average_precision(background: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """100 * sum over thresholds, from high to low, of precision times the gain of recall.

    Args:
        background: [..., NUM_BINS] number of background pixels with each mask value.
        foreground: [..., NUM_BINS] number of foreground pixels with each mask value.

    Returns:
        [...] in percent; NaN without a foreground pixel. A constant mask has the share of the foreground.

    Example:
        Four pixels with scores from high to low, foreground are the first and the third: (1 + 2 / 3) / 2.

        >>> import numpy as np
        >>> from minmax_jax.evaluation.metrics import pixel_curve
        >>> scores, true = np.array([0.9, 0.7, 0.5, 0.1]), np.array([True, False, True, False])
        >>> round(float(pixel_curve.average_precision(*pixel_curve.histogram(scores, true))), 1)
        83.3
    """
    hits, found = _from_high_to_low(background, foreground)
    with np.errstate(invalid="ignore", divide="ignore"):
        gains = np.diff(hits, axis=-1, prepend=0) / hits[..., -1:]
        return 100 * np.sum(gains * np.where(found > 0, hits / found, 0), axis=-1)


def _from_high_to_low(background: np.ndarray, foreground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(foreground pixels, all pixels) with at least each mask value, the highest value first."""
    hits = np.cumsum(foreground[..., ::-1], axis=-1)
    return hits, hits + np.cumsum(background[..., ::-1], axis=-1)


def _best_f1(background: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    hits, found = _from_high_to_low(background, foreground)
    with np.errstate(invalid="ignore"):
        return np.max(200 * hits / (found + hits[..., -1:]), axis=-1)


def _calibration_error(background: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Mean over all pixels of |share of foreground - mean mask value| of the tenth of the values that they are in."""
    centers = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    gaps = foreground - centers * (foreground + background)
    tenths = gaps.reshape(*gaps.shape[:-1], _CALIBRATION_BINS, -1).sum(-1)
    with np.errstate(invalid="ignore"):
        return 100 * np.abs(tenths).sum(-1) / (foreground + background).sum(-1)


def pooled(rows: Sequence[Row]) -> np.ndarray:
    """[2, NUM_BINS] histograms of all images together."""
    return sum((row[_COLUMN] for row in rows if row[_COLUMN] is not None), np.zeros((2, NUM_BINS), int))


def _score(prediction: ImagePrediction, truth: Truth) -> Row:
    if truth.mask is None:
        return {_COLUMN: None}
    mask, true = evaluators.counted_pixels(prediction, truth)
    return {_COLUMN: histogram(mask.ravel(), true.ravel())}


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    empty = np.zeros((2, NUM_BINS))
    histograms = np.stack([empty if row[_COLUMN] is None else row[_COLUMN] for row in rows]).astype(float)

    pool = evaluators.shared(lambda weights: (weights @ histograms[:, 0], weights @ histograms[:, 1]))

    def of_pooled(function):
        return lambda weights: function(*pool(weights))

    return {
        "pxap": Metric(of_pooled(average_precision), "%", "all"),
        "micro_f1_foreground_best": Metric(of_pooled(_best_f1), "%", "oracle"),
        "mask_calibration_error": Metric(of_pooled(_calibration_error), "%", "all"),
    }


EVALUATOR = Evaluator(score=_score, metrics=_metrics)
