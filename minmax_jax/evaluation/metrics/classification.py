"""Classification error, top-1 and top-5, of the predicted class, and the error of other classes that a method declares.

The balanced error is the mean over classes of each one's error, so that small classes count as much as large ones.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import numpy as np

from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row
from minmax_jax.method import NO_SCORES, Score, error_name


def is_among_best(row: Row, count: int) -> bool:
    """Whether fewer than `count` classes are more probable than the true one; the predicted class is always the first.

    Of equally probable classes the one with the lower index counts as more probable, as for the predicted class.
    """
    probabilities = np.asarray(row["probabilities"])
    return bool(np.argsort(-probabilities, kind="stable").tolist().index(row["label"]) < count)


def confusion(rows: Sequence[Row]) -> np.ndarray:
    """[C, C] number of images of each true class (row) that were given each class (column).

    Example:
        >>> from minmax_jax.evaluation.metrics import classification
        >>> rows = [{"label": 0, "predicted": predicted, "probabilities": [0.6, 0.4]} for predicted in (0, 0, 1)]
        >>> classification.confusion(rows).tolist()
        [[2, 1], [0, 0]]
    """
    matrix = np.zeros((len(rows[0]["probabilities"]),) * 2, int)
    np.add.at(matrix, ([row["label"] for row in rows], [row["predicted"] for row in rows]), 1)
    return matrix


def class_errors(rows: Sequence[Row], num_classes: int) -> list[Metric]:
    """The error of each of C classes, in percent of its images; NaN of a class without any."""
    labels = np.array([row["label"] for row in rows])
    is_wrong = 100.0 * np.array([row["predicted"] != row["label"] for row in rows])
    return [Metric(evaluators.ratio(is_wrong * members, members), "%") for members in _members(labels, num_classes)]


def _members(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """[C, N] bool: which images are of which class."""
    return labels == np.arange(num_classes)[:, None]


def _balanced_error(rows: Sequence[Row]) -> Metric:
    """Of the classes of whose images some count: in a resample, a small class may have none."""
    labels = np.array([row["label"] for row in rows])
    is_wrong = 100.0 * np.array([row["predicted"] != row["label"] for row in rows])
    members = _members(labels, len(rows[0]["probabilities"])).T.astype(float)

    def values(weights):
        counts = weights @ members
        errors = (weights @ (is_wrong[:, None] * members)) / np.maximum(counts, 1e-12)
        return errors.sum(axis=1) / (counts > 0).sum(axis=1)

    return Metric(values, "%")


def _metrics(columns: Mapping[str, str], rows: Sequence[Row]) -> dict[str, Metric]:
    found = {
        name: Metric(evaluators.ratio([100.0 * (row[column] != row["label"]) for row in rows]), "%")
        for name, column in columns.items()
        if rows and column in rows[0]
    }
    if rows:
        found["balanced_error"] = _balanced_error(rows)
    if rows and len(rows[0]["probabilities"]) > 5:  # of five classes and fewer, it is 0
        found["top5_error"] = Metric(evaluators.ratio([100.0 * (not is_among_best(row, 5)) for row in rows]), "%")
    return found


def _summarize(columns: Mapping[str, str], rows: Sequence[Row]) -> dict[str, Any]:
    """Errors in percent. The classes of an image are in its row already."""
    return {name: evaluators.once(metric.values, len(rows)) for name, metric in _metrics(columns, rows).items()}


def evaluator(scores: Mapping[str, Score] = NO_SCORES) -> Evaluator:
    """Errors of the predicted class, and of each class among the scores that a method declares."""
    columns = {"classification_error": "predicted"}
    columns |= {error_name(name): name for name, score in scores.items() if score.kind == "class"}
    return Evaluator(
        score=lambda prediction, truth: {},
        summarize=functools.partial(_summarize, columns),
        metrics=functools.partial(_metrics, columns),
    )


EVALUATOR = evaluator()
