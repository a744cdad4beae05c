"""Which metrics a run computes: few in validations, all in tests."""

from collections.abc import Mapping

from minmax_jax.evaluation import Evaluator
from minmax_jax.evaluation.metrics import (
    boundary,
    boxes,
    calibration,
    classification,
    dice,
    false_foreground,
    flags,
    instances,
    overlap,
    pixel_curve,
    thresholds,
)
from minmax_jax.evaluation.metrics import scores as scores_lib
from minmax_jax.method import NO_SCORES, Score
from minmax_jax.runs.building.groups import EvaluationOptions


def create_evaluators(
    options: EvaluationOptions, *, scores: Mapping[str, Score] = NO_SCORES, background_classes: tuple[int, ...] = ()
) -> tuple[Evaluator, ...]:
    """The metrics of validations.

    Args:
        options: of the evaluation.
        scores: of the method.
        background_classes: those without a region.
    """
    return (
        classification.evaluator(scores),
        dice.evaluator(threshold=options.threshold),
        false_foreground.evaluator(threshold=options.threshold),
        scores_lib.evaluator(scores, background_classes=background_classes),
    )


def create_mask_evaluators(options: EvaluationOptions) -> tuple[Evaluator, ...]:
    """All metrics of masks, whose classes need not be known."""
    return (
        dice.evaluator(threshold=options.threshold),
        overlap.evaluator(threshold=options.threshold),
        pixel_curve.EVALUATOR,
        thresholds.EVALUATOR,
        boundary.evaluator(threshold=options.threshold),
        boxes.evaluator(threshold=options.threshold),
        instances.evaluator(threshold=options.threshold),
        false_foreground.evaluator(threshold=options.threshold),
    )


def create_test_evaluators(
    options: EvaluationOptions, *, scores: Mapping[str, Score] = NO_SCORES, background_classes: tuple[int, ...] = ()
) -> tuple[Evaluator, ...]:
    """All metrics; validations leave most out, as they take longer and nothing is selected by them.

    Args:
        options: of the evaluation.
        scores: of the method.
        background_classes: those without a region.
    """
    return (
        classification.evaluator(scores),
        *create_mask_evaluators(options),
        scores_lib.evaluator(scores, background_classes=background_classes),
        calibration.EVALUATOR,
        flags.evaluator(threshold=options.threshold, scores=scores, background_classes=background_classes),
    )
