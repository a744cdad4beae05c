"""Classification error, top-1 and top-5, of the classifier and, where the method reports one, of the localizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row

_ERRORS = {"classification_error": "predicted", "localizer_classification_error": "localizer_class"}


def is_among_best(row: Row, count: int) -> bool:
    """Whether fewer than `count` classes are more probable than the true one; the predicted class is always the first.

    Of equally probable classes the one with the lower index counts as more probable, as for the predicted class.
    """
    probabilities = np.asarray(row["probabilities"])
    return bool(np.argsort(-probabilities, kind="stable").tolist().index(row["label"]) < count)


def confusion(rows: Sequence[Row]) -> np.ndarray:
    """[C, C] number of images of each true class (row) that were given each class (column)."""
    matrix = np.zeros((len(rows[0]["probabilities"]),) * 2, int)
    np.add.at(matrix, ([row["label"] for row in rows], [row["predicted"] for row in rows]), 1)
    return matrix


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    found = {
        name: Metric(evaluators.ratio([100.0 * (row[column] != row["label"]) for row in rows]), "%")
        for name, column in _ERRORS.items()
        if rows and column in rows[0]
    }
    if rows and len(rows[0]["probabilities"]) > 5:  # of five classes and fewer, it is 0
        found["top5_error"] = Metric(evaluators.ratio([100.0 * (not is_among_best(row, 5)) for row in rows]), "%")
    return found


def _summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Errors in percent. The classes of an image are in its row already."""
    return {name: float(metric.values(np.ones((1, len(rows))))[0]) for name, metric in _metrics(rows).items()}


EVALUATOR = Evaluator(score=lambda prediction, truth: {}, summarize=_summarize, metrics=_metrics)
