"""Localization by boxes: MaxBoxAcc, MaxBoxAccV2, and top-1, top-5 and GT-known localization.

Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right" (CVPR 2020). A mask is resized to
224 pixels a side, scaled to its range and quantised to 256 levels; a threshold keeps the levels strictly above it.
Regions are connected by eight neighbours; the largest has the most pixels. A constant mask is one region, the image.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from minmax_jax.base import options
from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row, Truth
from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.evaluation.metrics import classification
from minmax_jax.ops.cpu import components
from minmax_jax.ops.resize import resize_mask

SIDE = 224  # pixels
MIN_IOU = 0.5
_LEVELS_OF_IOU = (0.3, 0.5, 0.7)  # of MaxBoxAccV2
_MIN_SPAN = 1e-6  # less is rounding: the mask is constant
_COLUMNS = ("box_iou", "largest_box_ious", "best_box_ious")


def evaluator(*, threshold: float = 0.5) -> Evaluator:
    """Localization of images with a true box or mask; without boxes, the boxes of the mask's regions count.

    Args:
        threshold: of the soft mask, for the localization with a fixed threshold.

    Returns:
        An evaluator whose rows hold "box_iou" at the fixed threshold, and the IoU at each of 256 thresholds of the
        largest region's box and of the best; None without an annotation.

    Example:
        The box around the left half of the image is found, the true box is the whole image: an IoU of one half.

        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation.metrics import boxes
        >>> mask = np.repeat(np.float32([[1, 0]]), 112, axis=1).repeat(224, axis=0)
        >>> truth = evaluation.Truth(label=0, mask=None, boxes=np.float32([[0, 0, 1, 1]]))
        >>> row = boxes.evaluator().score(evaluation.ImagePrediction(0, None, mask, scores={}), truth)
        >>> row["box_iou"]
        0.5
    """
    options.check_range("threshold", threshold, 1e-6, 1 - 1e-6)
    return Evaluator(score=lambda prediction, truth: _score(prediction, truth, threshold), metrics=_metrics)


def true_boxes(truth: Truth) -> np.ndarray:
    """[K, 4] boxes (top, left, bottom, right) of an annotation, in whole pixels of 224, inclusive; K = 0: unknown."""
    if len(truth.boxes):
        boxes = truth.boxes
    elif truth.mask is not None:
        regions, _ = ndimage.label(truth.mask, np.ones((3, 3), int))
        found = [(y.start, x.start, y.stop - 1, x.stop - 1) for y, x in ndimage.find_objects(regions)]
        boxes = np.reshape(found, (-1, 4)) / np.tile(truth.mask.shape, 2)
    else:
        boxes = np.zeros((0, 4))
    return np.minimum((np.asarray(boxes) * SIDE + 1e-6).astype(np.int64), SIDE - 1)


def quantize(resized: np.ndarray) -> np.ndarray:
    """[224, 224] uint8 levels of a soft mask of that size; a constant one has the maximum level."""
    minimum, span = resized.min(), np.ptp(resized)
    return (
        np.floor(255 * ((resized - minimum) / span)).astype(np.uint8)
        if span > _MIN_SPAN
        else np.full((SIDE, SIDE), 255, np.uint8)
    )


def _score(prediction: ImagePrediction, truth: Truth, threshold: float) -> Row:
    boxes = true_boxes(truth)
    if not len(boxes):
        return dict.fromkeys(_COLUMNS)
    resized = _resize(prediction, truth)
    of_thresholds = components.box_overlaps(quantize(resized), boxes)
    # Thresholds k / 256 of the maximum level, rounded down: only the constant map's maximum level is above them all.
    levels = np.floor(np.arange(256) / 256 * 255).astype(int)
    largest, best = (curve[levels] for curve in of_thresholds)
    fixed = (resized >= threshold).astype(np.uint8)
    return {
        "box_iou": float(components.box_overlaps(fixed, boxes)[0][0]),
        "largest_box_ious": largest,
        "best_box_ious": best,
    }


def _resize(prediction: ImagePrediction, truth: Truth) -> np.ndarray:
    """[224, 224] soft mask with the minimum of its values, of no region, at ignored pixels."""
    if truth.ignored is None or not truth.ignored.any():
        return prediction.mask_at((SIDE, SIDE))
    mask = prediction.mask_at(truth.ignored.shape)
    return resize_mask(np.where(truth.ignored, mask.min(), mask), (SIDE, SIDE))


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    known = np.array([row["box_iou"] is not None for row in rows])
    if not known.any():
        return {}
    nothing = np.zeros(256)

    def hits(column, min_iou):
        return np.stack([nothing if row[column] is None else row[column] >= min_iou for row in rows]).astype(float)

    def maximum(*of_levels):
        """Mean over levels of IoU of the share of the images, at the threshold where it is highest."""

        def values(weights):
            with np.errstate(invalid="ignore"):  # of a resample without any image with a box, 0 / 0 is NaN
                shares = [100 * np.max(weights @ hit, axis=1) / (weights @ known) for hit in of_levels]
            return np.mean(shares, axis=0)

        return values

    largest = hits("largest_box_ious", MIN_IOU)
    fixed = np.array([(row["box_iou"] or 0) >= MIN_IOU for row in rows])
    metrics = {
        "max_box_acc": Metric(maximum(largest), "%", "oracle"),
        "max_box_acc_v2": Metric(maximum(*(hits("best_box_ious", level) for level in _LEVELS_OF_IOU)), "%", "oracle"),
        "gt_known_localization": Metric(evaluators.ratio(100 * fixed, known), "%", "fixed"),
    }
    for count in (1, 5) if "probabilities" in rows[0] else ():
        right = np.array([classification.is_among_best(row, count) for row in rows])
        metrics |= {
            f"top{count}_localization": Metric(evaluators.ratio(100 * (fixed & right), known), "%", "fixed"),
            f"top{count}_localization_best": Metric(maximum(largest * right[:, None]), "%", "oracle"),
        }
    return metrics
