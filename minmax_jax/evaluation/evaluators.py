"""Evaluates a method on a split: one pass over the images, any number of metrics, one row kept per image."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import types
from typing import Any, NamedTuple

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.evaluation import image_predictions
from minmax_jax.evaluation.image_predictions import ImagePrediction, PredictFn
from minmax_jax.evaluation.truth import Truth, read_truth
from minmax_jax.method import RefineFn

Row = dict[str, Any]


class Metric(NamedTuple):
    """A number of a split, as a function of how often each of its images counts: the bootstrap needs no second pass.

    Attributes:
        values: weights [R, N] of N images -> [R] values; NaN where the weights leave nothing to count.
        unit: "%", "nats", "pixels", "objects" or "" for a number without unit.
        threshold: how the threshold of the mask was chosen: "fixed" before training, on the "validation" images, or
            "oracle", the best for the images that are evaluated; "all" where all count, "" of metrics of the classes.
    """

    values: Callable[[np.ndarray], np.ndarray]
    unit: str
    threshold: str = ""


class Evaluator(NamedTuple):
    """A metric, or several that share their work.

    Attributes:
        score: (ImagePrediction, Truth) -> row: numbers or integer histograms of one image, by name.
        summarize: all rows -> numbers of the split, by name.
        metrics: all rows -> the metrics of the split, by name.

    Example:
        A user's metric, the share of the image that masks cover:

        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> def mean_share(rows):
        ...     return {"share": float(np.mean([row["share"] for row in rows]))}
        >>> share = evaluation.Evaluator(lambda prediction, truth: {"share": prediction.mask.mean()}, mean_share)
        >>> evaluation.summarize([{"share": 0.25}, {"share": 0.75}], [share])
        {'num_images': 2, 'share': 0.5}
    """

    score: Callable[[ImagePrediction, Truth], Row]
    summarize: Callable[[Sequence[Row]], dict[str, Any]] = lambda rows: {}
    metrics: Callable[[Sequence[Row]], dict[str, Metric]] = lambda rows: {}


def counted_pixels(prediction: ImagePrediction, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """(mask, true): the soft mask at the true mask's size and the true mask, without ignored pixels."""
    mask, true = prediction.mask_at(truth.mask.shape), truth.mask
    return (mask, true) if truth.ignored is None else (mask[~truth.ignored], true[~truth.ignored])


def shared(function: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """A function of weights that is called once for the metrics that ask for the same weights in turn."""
    last = None, None

    def of_last(weights):
        nonlocal last
        if last[0] is not weights:
            last = weights, function(weights)
        return last[1]

    return of_last


def ratio(numerators: Sequence[float], denominators: Sequence[float] | None = None) -> Callable[..., np.ndarray]:
    """`Metric.values` of sum of numerators / sum of denominators.

    Args:
        numerators: [N], one of each image.
        denominators: [N]; None: 1 for each, so that the value is a mean.
    """
    over = np.asarray(numerators, float)
    under = np.ones_like(over) if denominators is None else np.asarray(denominators, float)

    def values(weights):
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN, as promised
            return (weights @ over) / (weights @ under)

    return values


def mean_of_known(values: Sequence[float | None], *, factor: float = 1.0) -> Callable[..., np.ndarray]:
    """`Metric.values` of factor times the mean of [N] numbers, of which None and NaN do not count."""
    numbers = np.array([np.nan if value is None else value for value in values], float)
    known = ~np.isnan(numbers)
    return ratio(factor * np.where(known, numbers, 0), known)


def once(values: Callable[[np.ndarray], np.ndarray], num_images: int) -> float:
    """The number of a split whose images count once each.

    Args:
        values: of a `Metric`.
        num_images: N.

    Example:
        >>> from minmax_jax.evaluation import evaluators
        >>> evaluators.once(evaluators.ratio([1.0, 2.0, 6.0]), 3)
        3.0
    """
    return float(values(np.ones((1, num_images)))[0])


def evaluate(
    predict_fn: PredictFn,
    split: dataset.Split,
    evaluators: Sequence[Evaluator],
    *,
    batch_size: int = 4,
    refine_fn: RefineFn | None = None,
    shapes: np.ndarray | None = None,
    baselines: Mapping[str, Callable[[tuple[int, int]], np.ndarray]] = types.MappingProxyType({}),
) -> list[Row]:
    """Predicts each image once and scores it by all evaluators.

    Args:
        predict_fn: [B, H, W, 3] uint8 images to a Prediction; compiled once per shape.
        split: images and annotations.
        evaluators: the metrics.
        batch_size: images of one shape that are predicted together.
        refine_fn: as in `predict_split`.
        shapes: as in `predict_split`.
        baselines: masks by name, from the size of the true mask, that are scored as well, as `baselines.BASELINES`.

    Returns:
        A row per image, in the order of the split: "name", "label" (true class), "predicted" (class), "probabilities",
        the method's scores, the evaluators' numbers, and under "baselines" those of each baseline.

    Example:
        A method that calls every pixel foreground and every image class 0, on built-in images of four classes:

        >>> import numpy as np
        >>> from minmax_jax import evaluation, method
        >>> from minmax_jax.data import synthetic
        >>> from minmax_jax.evaluation.metrics import classification, dice
        >>> def predict(images):
        ...     probabilities = np.tile([0.7, 0.1, 0.1, 0.1], (len(images), 1))
        ...     return method.Prediction(probabilities, np.ones((*images.shape[:3], 1)), scores={})
        >>> split = synthetic.load("test", 8, config=synthetic.SyntheticConfig())
        >>> metrics = [classification.EVALUATOR, dice.evaluator()]
        >>> rows = evaluation.evaluate(predict, split, metrics)
        >>> summary = evaluation.summarize(rows, metrics)
        >>> summary["classification_error"], summary["f1_background"]
        (75.0, 0.0)
    """
    predictions = image_predictions.predict_split(
        predict_fn, split, batch_size=batch_size, refine_fn=refine_fn, shapes=shapes
    )
    return score(predictions, split, evaluators, baselines=baselines)


def score(
    predictions: Iterable[ImagePrediction],
    split: dataset.Split,
    evaluators: Sequence[Evaluator],
    *,
    baselines: Mapping[str, Callable[[tuple[int, int]], np.ndarray]] = types.MappingProxyType({}),
) -> list[Row]:
    """As `evaluate`, for predictions that exist already, such as heat maps of another system.

    Args:
        predictions: for images of the split, in any order.
        split: images and annotations.
        evaluators: the metrics.
        baselines: as in `evaluate`.

    Returns:
        Rows as of `evaluate`; those of predictions without probabilities hold no classes.

    Example:
        The true masks as predictions have a Dice of 1:

        >>> from minmax_jax import evaluation
        >>> from minmax_jax.data import synthetic
        >>> from minmax_jax.evaluation.metrics import dice
        >>> split = synthetic.load("test", 2, config=synthetic.SyntheticConfig())
        >>> masks = [evaluation.ImagePrediction(i, None, split.read_mask(i).astype("float32"), {}) for i in range(2)]
        >>> rows = evaluation.score(masks, split, [dice.evaluator()])
        >>> rows[1]["name"], float(rows[1]["f1_foreground"])
        ('test_000001', 1.0)
    """
    rows = {}
    for prediction in predictions:
        index = prediction.index
        rows[index] = score_image(
            prediction, read_truth(split, index), evaluators, name=split.names[index], baselines=baselines
        )
    return [rows[index] for index in sorted(rows)]


def score_image(
    prediction: ImagePrediction,
    truth: Truth,
    evaluators: Sequence[Evaluator],
    *,
    name: str,
    baselines: Mapping[str, Callable[[tuple[int, int]], np.ndarray]] = types.MappingProxyType({}),
) -> Row:
    """The row of one image, as of `evaluate`.

    Args:
        prediction: for the image.
        truth: its annotation.
        evaluators: the metrics.
        name: of the image.
        baselines: as in `evaluate`.
    """
    row = {"name": name, "label": truth.label}
    if prediction.probabilities is not None:
        classes = {"predicted": prediction.predicted, "probabilities": prediction.probabilities.tolist()}
        row |= classes | prediction.scores
    row |= _score(evaluators, prediction, truth)
    if baselines:
        size = prediction.mask.shape if truth.mask is None else truth.mask.shape
        row["baselines"] = {
            baseline: _score(evaluators, dataclasses.replace(prediction, mask=make(size)), truth)
            for baseline, make in baselines.items()
        }
    return row


def _score(evaluators: Sequence[Evaluator], prediction: ImagePrediction, truth: Truth) -> Row:
    return {name: value for evaluator in evaluators for name, value in evaluator.score(prediction, truth).items()}


def measure(rows: Sequence[Row], evaluators: Sequence[Evaluator]) -> dict[str, Metric]:
    """The metrics of all evaluators, by name.

    Example:
        Metrics are functions of how often each image counts:

        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation.metrics import classification
        >>> rows = [{"label": 0, "predicted": predicted, "probabilities": [0.5, 0.5]} for predicted in (0, 1)]
        >>> error = evaluation.measure(rows, [classification.EVALUATOR])["classification_error"]
        >>> print(error.values(np.array([[1.0, 1.0], [3.0, 1.0]])), error.unit)
        [50. 25.] %
    """
    return {name: metric for evaluator in evaluators for name, metric in evaluator.metrics(rows).items()}


def summarize(rows: Sequence[Row], evaluators: Sequence[Evaluator]) -> dict[str, Any]:
    """The numbers of a split: those of all evaluators, and "num_images".

    Example:
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation.metrics import classification
        >>> rows = [{"label": 0, "predicted": predicted, "probabilities": [0.5, 0.5]} for predicted in (0, 1)]
        >>> evaluation.summarize(rows, [classification.EVALUATOR])["classification_error"]
        50.0
    """
    summary = {"num_images": len(rows)}
    for evaluator in evaluators:
        summary |= evaluator.summarize(rows)
    return summary
