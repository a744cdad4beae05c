"""From a configuration to everything that a run consists of. The fields are described in configs/common.py."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import ml_collections
import numpy as np

from minmax_jax.base import errors
from minmax_jax.data import canvases, dataset, padding
from minmax_jax.distributed import devices, engines
from minmax_jax.evaluation import Evaluator, selection
from minmax_jax.method import Method, Prediction, PredictMasks, RefineFn, masks_alone
from minmax_jax.models import classifier
from minmax_jax.runs.building import creation, data_splits, metric_sets
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.building.options import RunOptions
from minmax_jax.training import views
from minmax_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that training and evaluation of a configuration need.

    Attributes:
        config: the configuration as it is written to the folder of the run.
        options: the same, read and checked.
        splits: "train", "validation" and "test".
        shapes: of the canvases that the images of all splits share in evaluations, or None: see `canvases.choose`.
        steps_per_epoch: whole batches in the training split, at least 1.
        method: the method that is trained.
        train_step: (state, this host's batch) -> (state, metrics), on all devices; donates the state.
        predict: (variables, images) -> Prediction, on the devices of this host, by all test-time views.
        predict_masks: the masks of `predict`; those of a second stage by a program of their own, without the passes of
            the first that only other numbers need.
        predict_stages: of a run with a second stage, (variables, images) -> (`predict`, Prediction of the first stage),
            as one program that computes the first stage once; None without.
        predict_once: as `predict` of the first stage, by the image alone, without other views: for validations.
        classify: as `Method.classify`, on the devices of this host.
        evaluators: metrics of each validation.
        test_evaluators: metrics of tests, those of validations among them.
        refine_fn: what becomes of the masks of tests: the scaling of a second stage, or the CRF of `evaluate --crf`;
            None: they stay.
        state: fresh, on all devices.
    """

    config: ml_collections.ConfigDict
    options: RunOptions
    splits: dict[str, dataset.Split]
    shapes: np.ndarray | None
    steps_per_epoch: int
    method: Method
    train_step: Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]
    predict: Callable[[dict[str, Any], jax.Array], Prediction]
    predict_masks: PredictMasks
    predict_stages: Callable[[dict[str, Any], jax.Array], tuple[Prediction, Prediction]] | None
    predict_once: Callable[[dict[str, Any], jax.Array], Prediction]
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
    options = options_lib.read(config, num_devices=jax.device_count(), num_local_devices=jax.local_device_count())
    splits = data_splits.create_splits(options.data)
    _check_selection(options, splits["validation"])
    steps_per_epoch = max(1, len(splits["train"]) // options.batch_size)
    _check_classifier(options, splits)
    background_classes = splits["train"].background_labels
    method, without_views = (
        creation.create_method(
            chosen,
            num_classes=len(splits["train"].class_names),
            steps_per_epoch=steps_per_epoch,
            background_classes=background_classes,
        )
        for chosen in (options, options.with_views(flips=False, scales=(1.0,)))
    )
    engine = engines.ENGINES[options.train.engine]
    predict = engine.parallelize_predict(method.predict)
    state = method.init(jax.random.key(options.seed), data_splits.crop_size(options.data, splits["train"]))
    return Run(
        config=config,
        options=options,
        splits=splits,
        shapes=_choose_canvases(splits) if method.reads_canvases else None,
        steps_per_epoch=steps_per_epoch,
        method=method,
        train_step=engine.parallelize_train_step(method.train_step),
        predict=predict,
        predict_masks=masks_alone(predict),  # the program that is there already: to compile another takes longer
        predict_stages=None,
        # One function where views are the same, so that its programs are compiled once.
        predict_once=predict if options.views == views.ONE else engine.parallelize_predict(without_views.predict),
        classify=engine.parallelize_predict(method.classify) if method.classify else None,
        evaluators=metric_sets.create_evaluators(
            options.evaluation, scores=method.scores, background_classes=background_classes
        ),
        test_evaluators=metric_sets.create_test_evaluators(
            options.evaluation, scores=method.scores, background_classes=background_classes
        ),
        refine_fn=None,
        state=devices.replicate(state),
    )


def _choose_canvases(splits: dict[str, dataset.Split]) -> np.ndarray | None:
    return canvases.choose(np.concatenate([split.sizes for split in splits.values()]))


def _check_selection(options: RunOptions, split: dataset.Split) -> None:
    uses_masks = options.evaluation.selection == selection.USES_MASKS
    if uses_masks and not dataset.any_mask(split):
        raise errors.OptionError(
            f"config.evaluation.selection={options.evaluation.selection!r} needs masks of validation images, and no"
            " image has one. Choose 'classification_error'."
        )


def _check_classifier(options: RunOptions, splits: dict[str, dataset.Split]) -> None:
    """Raises OptionError where the classifier would see no pixel: of a crop, or of the smallest image and size."""
    minimum = min(int(padding.padded_sizes(split.sizes).min()) for split in splits.values())
    resized = [views.view_side(minimum, scale) for scale in (*options.evaluation.scales, *options.refine.scales)]
    side = min(*data_splits.crop_size(options.data, splits["train"]), minimum, *resized)
    with errors.naming("config.model."):
        classifier.check_size(options.model.classifier_scale, (side, side))
