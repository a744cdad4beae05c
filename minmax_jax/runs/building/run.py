"""From a configuration to everything that a run consists of. The fields are described in configs/common.py."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import ml_collections

from minmax_jax.base import errors
from minmax_jax.data import dataset, padding
from minmax_jax.distributed import devices, engines
from minmax_jax.evaluation import Evaluator, selection
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
from minmax_jax.method import Method, Prediction
from minmax_jax.minmax import inference
from minmax_jax.models import classifier
from minmax_jax.refinement.crf import RefineFn
from minmax_jax.runs.building import config_checks
from minmax_jax.runs.building import data_splits as build_data
from minmax_jax.runs.building import networks as build_model
from minmax_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that training and evaluation of a configuration need.

    Attributes:
        config: the configuration, checked.
        splits: "train", "validation" and "test".
        steps_per_epoch: whole batches in the training split, at least 1.
        method: the method that is trained.
        train_step: (state, this host's batch) -> (state, metrics), on all devices; donates the state.
        predict: (variables, images) -> Prediction, on the devices of this host.
        classify: as `Method.classify`, on the devices of this host.
        evaluators: metrics of each validation.
        test_evaluators: metrics of tests, those of validations among them.
        refine_fn: the CRF for the masks of tests, or None; validations do not use it.
        state: fresh, on all devices.
    """

    config: ml_collections.ConfigDict
    splits: dict[str, dataset.Split]
    steps_per_epoch: int
    method: Method
    train_step: Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]
    predict: Callable[[dict[str, Any], jax.Array], Prediction]
    classify: Callable[[dict[str, Any], jax.Array], jax.Array] | None
    evaluators: Sequence[Evaluator]
    test_evaluators: Sequence[Evaluator]
    refine_fn: RefineFn | None
    state: TrainState


def build_run(config: ml_collections.ConfigDict) -> Run:
    """Builds a run.

    Raises:
        UserError: for a field or a dataset that cannot be used.
    """
    check_config(config, num_devices=jax.device_count(), num_local_devices=jax.local_device_count())
    splits = build_data.create_splits(config)
    _check_selection(config, splits["validation"])
    steps_per_epoch = max(1, len(splits["train"]) // config.batch_size)
    _check_classifier(config, splits)
    background_classes = splits["train"].background_labels
    method = build_model.create_method(
        config,
        num_classes=len(splits["train"].class_names),
        steps_per_epoch=steps_per_epoch,
        # Where there is none, a method need not know of them.
        **({"background_classes": background_classes} if background_classes else {}),
    )
    engine = engines.ENGINES[config.train.engine]
    state = method.init(jax.random.key(config.seed), build_data.crop_size(config.data, splits["train"]))
    return Run(
        config=config,
        splits=splits,
        steps_per_epoch=steps_per_epoch,
        method=method,
        train_step=engine.parallelize_train_step(method.train_step),
        predict=engine.parallelize_predict(method.predict),
        classify=engine.parallelize_predict(method.classify) if method.classify else None,
        evaluators=create_evaluators(config.evaluation, background_classes=background_classes),
        test_evaluators=create_test_evaluators(config.evaluation, background_classes=background_classes),
        refine_fn=build_model.create_refine(config.evaluation.crf) if config.evaluation.crf.enabled else None,
        state=devices.replicate(state),
    )


def _check_selection(config: ml_collections.ConfigDict, split: dataset.Split) -> None:
    uses_masks = config.evaluation.selection == selection.USES_MASKS
    if uses_masks and not dataset.any_mask(split):
        raise errors.OptionError(
            f"config.evaluation.selection={config.evaluation.selection!r} needs masks of validation images, and no"
            " image has one. Choose 'classification_error'."
        )


def _check_classifier(config: ml_collections.ConfigDict, splits: dict[str, dataset.Split]) -> None:
    """Raises OptionError if of a crop, or of an image at the least of the sizes it is seen at, no pixel is left."""
    least = min(int(padding.padded_sizes(split.sizes).min()) for split in splits.values())
    resized = [inference.view_side(least, scale) for scale in (*config.evaluation.scales, *config.refine.scales)]
    side = min(*build_data.crop_size(config.data, splits["train"]), least, *resized)
    with errors.naming("config.model."):
        classifier.check_size(config.model.classifier_scale, (side, side))


def check_config(config: ml_collections.ConfigDict, *, num_devices: int, num_local_devices: int) -> None:
    """Checks all values of a configuration before any data is read.

    Args:
        config: with all fields.
        num_devices: number of devices that share a batch.
        num_local_devices: number of devices that share an evaluation batch.

    Raises:
        UserError: naming the field, its value, and what it must be.
    """
    config_checks.check_values(config, num_devices=num_devices, num_local_devices=num_local_devices)
    build_model.create_objective(config, steps_per_epoch=1)  # the number of steps does not matter here
    build_model.create_optimizer(config, steps_per_epoch=1)
    build_model.create_refine(config.evaluation.crf)
    build_model.create_refine_options(config.refine)
    create_evaluators(config.evaluation)
    build_data.create_synthetic_options(config.data)
    build_data.create_preprocessing(config.data)
    build_data.create_augmentation(config.data, (0, 0))  # the size of the crops is not known yet


def create_evaluators(
    options: ml_collections.ConfigDict, *, background_classes: tuple[int, ...] = ()
) -> tuple[Evaluator, ...]:
    """The metrics of validations, of group `evaluation` of a configuration; `background_classes` have no region."""
    with errors.naming("config.evaluation."):
        return (
            classification.EVALUATOR,
            dice.evaluator(threshold=options.threshold, empty=options.empty),
            false_foreground.evaluator(threshold=options.threshold),
            entropy.evaluator(background_classes=background_classes),
        )


def create_mask_evaluators(options: ml_collections.ConfigDict) -> tuple[Evaluator, ...]:
    """All metrics of masks, whose classes need not be known."""
    with errors.naming("config.evaluation."):
        return (
            dice.evaluator(threshold=options.threshold, empty=options.empty),
            overlap.evaluator(threshold=options.threshold),
            pixel_curve.EVALUATOR,
            thresholds.EVALUATOR,
            boundary.evaluator(threshold=options.threshold),
            boxes.evaluator(threshold=options.threshold),
            instances.evaluator(threshold=options.threshold),
            false_foreground.evaluator(threshold=options.threshold),
        )


def create_test_evaluators(
    options: ml_collections.ConfigDict, *, background_classes: tuple[int, ...] = ()
) -> tuple[Evaluator, ...]:
    """All metrics; validations leave most out, as they take longer and nothing is selected by them."""
    return (
        classification.EVALUATOR,
        *create_mask_evaluators(options),
        entropy.evaluator(background_classes=background_classes),
        calibration.EVALUATOR,
        flags.evaluator(threshold=options.threshold, background_classes=background_classes),
    )
