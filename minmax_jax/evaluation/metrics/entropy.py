"""Mean conditional entropies, in nats and as a share of log C, of methods that report them.

The background entropy of an image that a class without a region is predicted for has no meaning, and does not count.
"""

from collections.abc import Sequence

import numpy as np

from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row
from minmax_jax.evaluation.image_predictions import ImagePrediction

_BACKGROUND = "background_entropy"
_NAMES = ("foreground_entropy", _BACKGROUND)


def evaluator(*, background_classes: Sequence[int] = ()) -> Evaluator:
    """The entropies that are in the rows of the images already.

    Args:
        background_classes: those without a region; where one is predicted, the background entropy becomes None.
    """
    return Evaluator(
        score=lambda prediction, truth: _without_meaning(prediction, background_classes),
        summarize=_summarize,
        metrics=_metrics,
    )


def _without_meaning(prediction: ImagePrediction, background_classes: Sequence[int]) -> Row:
    if _BACKGROUND in prediction.scores and prediction.predicted in background_classes:
        return {_BACKGROUND: None}
    return {}


def _summarize(rows: Sequence[Row]) -> dict[str, float]:
    """Means over the images."""
    found = {}
    for name in _NAMES:
        if rows and name in rows[0]:
            values = [row[name] for row in rows if row[name] is not None]
            found[name] = float(np.mean(values)) if values else float("nan")
    return found


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    found = {}
    for name in _NAMES:
        if rows and name in rows[0]:
            values = np.array([row[name] for row in rows], float)  # None becomes NaN
            uniform = np.log(len(rows[0]["probabilities"]))
            found[name] = Metric(evaluators.mean_of_known(values), "nats")
            found[f"{name}_share"] = Metric(evaluators.mean_of_known(100 * values / uniform), "%")
    return found
