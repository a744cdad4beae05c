"""Evaluates a method on a split: one pass over the images, any number of metrics, one row kept per image."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from minmax_jax.crf import RefineFn
from minmax_jax.data import dataset
from minmax_jax.evaluation import image_predictions
from minmax_jax.evaluation.image_predictions import ImagePrediction, PredictFn

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Truth:
    """The annotation of one image.

    Attributes:
        label: its class.
        mask: [H', W'] bool foreground at the annotation's own resolution, or None where there is none.
        boxes: [K, 4] bounding boxes (top, left, bottom, right) as shares of height and width; K = 0: unknown.
        ignored: [H', W'] bool, pixels that no metric may count, or None.
    """

    label: int
    mask: np.ndarray | None
    boxes: np.ndarray
    ignored: np.ndarray | None = None


class Evaluator(NamedTuple):
    """A metric, or several that share their work.

    Attributes:
        score: (ImagePrediction, Truth) -> row: numbers or integer histograms of one image, by name.
        summarize: all rows -> numbers of the split, by name.
    """

    score: Callable[[ImagePrediction, Truth], Row]
    summarize: Callable[[Sequence[Row]], dict[str, Any]]


def evaluate(
    predict_fn: PredictFn,
    split: dataset.Split,
    evaluators: Sequence[Evaluator],
    *,
    batch_size: int = 4,
    refine_fn: RefineFn | None = None,
) -> list[Row]:
    """Predicts each image once and scores it by all evaluators.

    Args:
        predict_fn: [B, H, W, 3] uint8 images to a Prediction; compiled once per shape.
        split: images and annotations.
        evaluators: the metrics.
        batch_size: images of one shape that are predicted together.
        refine_fn: as in `predict_split`.

    Returns:
        A row per image, in the order of the split: "name", "label" (true class), "predicted" (class), "probabilities",
        the method's scores, and the evaluators' numbers.
    """
    rows = {}
    predictions = image_predictions.predict_split(predict_fn, split, batch_size=batch_size, refine_fn=refine_fn)
    for prediction in predictions:
        index = prediction.index
        truth = Truth(
            int(split.labels[index]), split.read_mask(index), split.read_boxes(index), split.read_ignored(index)
        )
        rows[index] = {
            "name": split.names[index],
            "label": truth.label,
            "predicted": prediction.predicted,
            "probabilities": prediction.probabilities.tolist(),
            **prediction.scores,
        }
        for evaluator in evaluators:
            rows[index] |= evaluator.score(prediction, truth)
    return [rows[index] for index in sorted(rows)]


def summarize(rows: Sequence[Row], evaluators: Sequence[Evaluator]) -> dict[str, Any]:
    """The numbers of a split: those of all evaluators, and "num_images"."""
    summary = {"num_images": len(rows)}
    for evaluator in evaluators:
        summary |= evaluator.summarize(rows)
    return summary
