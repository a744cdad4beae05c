"""Trust flags: the share of images that carry one, and the classification error with and without them."""

from collections.abc import Mapping, Sequence
import functools

import numpy as np

from minmax_jax.evaluation import evaluators, trust
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row
from minmax_jax.method import NO_SCORES, Score


def evaluator(
    *,
    threshold: float,
    scores: Mapping[str, Score] = NO_SCORES,
    background_classes: Sequence[int] = (),
) -> Evaluator:
    """Rows hold the flags in words as "flags".

    Args:
        threshold: a pixel is foreground where the mask is at least this.
        scores: of the method.
        background_classes: those without a region.
    """
    find_flags = functools.partial(
        trust.find_flags, threshold=threshold, scores=scores, background_classes=background_classes
    )
    return Evaluator(score=lambda prediction, truth: {"flags": find_flags(prediction)}, metrics=_metrics)


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    flagged = np.array([bool(row["flags"]) for row in rows])
    errors = 100.0 * np.array([row["predicted"] != row["label"] for row in rows])
    return {
        "flagged_share": Metric(evaluators.ratio(100.0 * flagged), "%"),
        "classification_error_flagged": Metric(evaluators.ratio(errors * flagged, flagged), "%"),
        "classification_error_unflagged": Metric(evaluators.ratio(errors * ~flagged, ~flagged), "%"),
    }
