"""Which metrics a run computes: few in validations, all in tests."""

from minmax_jax.evaluation import Evaluator
from minmax_jax.evaluation.metrics import (
    boundary,
    boxes,
    calibration,
    classification,
    dice,
    entropy,
    false_foreground,
    flags,
    instances,
    overlap,
    pixel_curve,
    thresholds,
)
from minmax_jax.runs.building.groups import EvaluationOptions


def create_evaluators(options: EvaluationOptions, *, background_classes: tuple[int, ...] = ()) -> tuple[Evaluator, ...]:
    """The metrics of validations, of group `evaluation` of a configuration; `background_classes` have no region."""
    return (
        classification.EVALUATOR,
        dice.evaluator(threshold=options.threshold),
        false_foreground.evaluator(threshold=options.threshold),
        entropy.evaluator(background_classes=background_classes),
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
    options: EvaluationOptions, *, background_classes: tuple[int, ...] = ()
) -> tuple[Evaluator, ...]:
    """All metrics; validations leave most out, as they take longer and nothing is selected by them."""
    return (
        classification.EVALUATOR,
        *create_mask_evaluators(options),
        entropy.evaluator(background_classes=background_classes),
        calibration.EVALUATOR,
        flags.evaluator(threshold=options.threshold, background_classes=background_classes),
    )
