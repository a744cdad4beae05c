"""Classification error of the classifier and, where the method reports one, of the localizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minmax_jax.evaluation.evaluators import Evaluator, Row


def _summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Errors in percent. The two classes of an image are in its row already."""
    summary = {"classification_error": _error(rows, "predicted")}
    if rows and "localizer_class" in rows[0]:
        summary["localizer_classification_error"] = _error(rows, "localizer_class")
    return summary


def _error(rows: Sequence[Row], predicted: str) -> float:
    return 100 * float(np.mean([row[predicted] != row["label"] for row in rows]))


EVALUATOR = Evaluator(score=lambda prediction, truth: {}, summarize=_summarize)
