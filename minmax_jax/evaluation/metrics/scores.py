"""Means over the images of the scores that a method declares; entropies also as a share of log C.

A score that needs a region does not count for images that a class without a region is predicted for. The error of a
score that is a class is a metric of `classification`.
"""

from collections.abc import Mapping, Sequence
import functools

import numpy as np

from minmax_jax.evaluation import evaluators, image_predictions
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row
from minmax_jax.method import Score


def evaluator(scores: Mapping[str, Score], *, background_classes: Sequence[int] = ()) -> Evaluator:
    """The scores that are in the rows of the images already.

    Args:
        scores: of the method.
        background_classes: those without a region; where one is predicted, a score that needs a region becomes None.
    """
    known = functools.partial(image_predictions.known_scores, scores=scores, background_classes=background_classes)
    numbers = {name: score for name, score in scores.items() if score.kind != "class"}
    return Evaluator(
        score=lambda prediction, truth: known(prediction),
        summarize=functools.partial(_summarize, numbers),
        metrics=functools.partial(_metrics, numbers),
    )


def _summarize(scores: Mapping[str, Score], rows: Sequence[Row]) -> dict[str, float]:
    """Means over the images."""
    found = {}
    for name in scores:
        if rows and name in rows[0]:
            values = [row[name] for row in rows if row[name] is not None]
            found[name] = float(np.mean(values)) if values else float("nan")
    return found


def _metrics(scores: Mapping[str, Score], rows: Sequence[Row]) -> dict[str, Metric]:
    found = {}
    for name, score in scores.items():
        if rows and name in rows[0]:
            values = np.array([row[name] for row in rows], float)  # None becomes NaN
            found[name] = Metric(evaluators.mean_of_known(values), score.unit)
            if score.kind == "entropy":
                uniform = np.log(len(rows[0]["probabilities"]))
                found[f"{name}_share"] = Metric(evaluators.mean_of_known(100 * values / uniform), "%")
    return found
