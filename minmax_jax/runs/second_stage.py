"""The second stage of a run: its decoder, and the run whose masks the decoder predicts."""

from collections.abc import Callable
import dataclasses
import functools
import logging
import pathlib
from typing import Any, NamedTuple

import numpy as np

from minmax_jax.base.errors import OptionError, naming
from minmax_jax.data import dataset
from minmax_jax.distributed import engines
from minmax_jax.method import masks_alone
from minmax_jax.ops import canvas
from minmax_jax.refinement import cache, calibration, decoder_training, priors
from minmax_jax.refinement.options import RefineOptions
from minmax_jax.runs.building import creation
from minmax_jax.runs.building.run import Run
from minmax_jax.runs.folder import digests, model_card
from minmax_jax.training import state as state_lib

logger = logging.getLogger(__name__)


class SecondStage(NamedTuple):
    """A trained second stage.

    Attributes:
        decoder: its parameters.
        edge_weight: of the pairwise term in its training: less than `config.refine.edge_weight` where that made masks
            constant; None where an earlier version did not note it.
    """

    decoder: Any
    edge_weight: float | None


def train(run: Run, state: state_lib.TrainState) -> SecondStage:
    """Trains the decoder on the training images; of several hosts, each does the same work.

    Args:
        run: the run.
        state: of the selected model.

    Raises:
        OptionError: for a method without a trunk.
    """
    options = run.options
    groups = create_collector(run, state)(run.splits["train"])
    num_images = sum(len(group.images) for group in groups)
    logger.info("The second stage trains on %d of %d images.", num_images, len(run.splits["train"]))
    if left_out := int(np.count_nonzero(~run.splits["train"].has_region)):
        logger.info("%d of them are of classes without a region and give no seeds.", left_out)
    decoder = creation.create_decoder(options.model.trunk)
    with naming("config.refine."):
        return SecondStage(*decoder_training.train(groups, decoder=decoder, options=options.refine, seed=options.seed))


def create_collector(run: Run, state: state_lib.TrainState) -> Callable[[dataset.Split], list[cache.Group]]:
    """The function from training images to what the decoder learns from; its programs are compiled once per shape.

    Args:
        run: the run.
        state: of the selected model.

    Raises:
        OptionError: for a method without a trunk.
    """
    options = run.options
    if run.method.stages is None:
        raise OptionError(f"config.refine.enabled=True needs a trunk; config.method={options.method!r} has none.")
    parallelize = engines.ENGINES[options.train.engine].parallelize_predict
    stages, variables = parallelize(run.method.stages), state_lib.inference_variables(state)
    return functools.partial(
        cache.collect,
        _create_masks_fn(run, variables),
        lambda images: stages(variables, images),
        options=options.refine,
        batch_size=options.evaluation.batch_size,
        seed=options.seed,
        shapes=run.shapes,
    )


def _create_masks_fn(run: Run, variables: dict[str, Any]) -> cache.MasksFn:
    """Where the seeds come from: a declared prior, or the first stage."""
    if prior := run.options.refine.prior:
        compute = priors.PRIORS[prior]
        return lambda images: np.stack([compute(image) for image in canvas.split(images)[0]])[..., None]
    masks = masks_alone(_create_seed_method(run).predict)
    masks = engines.ENGINES[run.options.train.engine].parallelize_predict(masks)
    return lambda images: masks(variables, images)


def _create_seed_method(run: Run) -> Any:
    """The method with the test-time augmentation of the seeds: all mirror images of training, and `refine.scales`."""
    split, flips = run.splits["train"], any(run.options.training_flips.values())
    return creation.create_method(
        run.options.with_views(flips=flips, scales=run.options.refine.scales),
        num_classes=len(split.class_names),
        steps_per_epoch=run.steps_per_epoch,
        background_classes=split.background_labels,
    )


def refine(run: Run, stage: SecondStage) -> Run:
    """The run with the masks of a decoder, calibrated, in place of the first stage's."""
    refined = creation.create_refined_predict(
        run.options, run.method, background_classes=run.splits["train"].background_labels
    )

    def predict_both(variables, images):
        first = run.method.predict(variables, images)
        return refined(variables, images, first_stage=lambda *_: first), first

    def parallelize(function):
        on_devices = engines.ENGINES[run.options.train.engine].parallelize_predict(function)
        return lambda variables, images: on_devices({"decoder": stage.decoder} | variables, images)

    predict_stages = parallelize(predict_both)
    calibrate = calibration.CALIBRATIONS[run.options.refine.calibration]
    return dataclasses.replace(
        run,
        predict=lambda variables, images: predict_stages(variables, images)[0],  # the program of the test
        predict_masks=parallelize(masks_alone(refined)),
        predict_stages=predict_stages,
        refine_fn=lambda mask, image: calibrate(mask),
    )


def read_saved(folder: pathlib.Path, state: state_lib.TrainState) -> tuple[SecondStage, RefineOptions] | None:
    """The second stage that the folder holds for this model, and its options; None without."""
    try:
        card, variables = model_card.read(folder)
    except model_card.ModelCardError:
        return None
    if "decoder" not in variables or card["state_digest"] != digests.model_digest(state):
        return None
    if card["second_stage_digest"] not in ("", model_card.digest_second_stage(card, variables)):
        return None  # a decoder that was stopped before its card was written
    return SecondStage(variables["decoder"], card.get("edge_weight_used")), model_card.refine_options(card)


def restore(folder: pathlib.Path, options: RefineOptions, state: state_lib.TrainState) -> SecondStage | None:
    """The second stage that the folder holds for this model and these options, or None.

    Args:
        folder: of the run.
        options: of the second stage.
        state: of the selected model.
    """
    saved = read_saved(folder, state)
    if saved is None:
        return None
    stage, of_saved = saved
    return stage if of_saved == options else None
