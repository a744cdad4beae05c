"""Forward passes of one training step: the localizer's, and the classifier's on what the masks show and hide."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax import masks
from minmax_jax.minmax import erasing, random_masks
from minmax_jax.minmax import objective as objective_lib
from minmax_jax.models import minmax_net
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training import microbatches, update

# Random stream of each forward pass: the classifier's two, then one per erasure of the localizer.
_FOREGROUND_DRAW, _BACKGROUND_DRAW, _FIRST_LOCALIZER_DRAW = range(3)
# The classifier's optional passes, then the random masks; beyond the maximum number of erasures.
_WHOLE_DRAW, _RANDOM_DRAW, _RANDOM_MASKS_DRAW = range(2**16, 2**16 + 3)


@dataclasses.dataclass(frozen=True)
class StepInputs:
    """Inputs shared by all forward passes of one training step.

    Attributes:
        images: [B, H, W, 3], scaled to [-1, 1].
        labels: [B] classes.
        sample_keys: [B] keys of the step and of an image's index in the whole batch.
        step: of the training.
        apply: (params, statistics, sample keys, draw, *arrays, method=) -> (result, updated statistics).
        objective: what is minimised.
        accumulation: number of micro-batches.
        axis_name: mapped axis of the devices that share the batch, or None.
    """

    images: jax.Array
    labels: jax.Array
    sample_keys: jax.Array
    step: jax.Array
    apply: Callable[..., tuple[Any, Any]]
    objective: objective_lib.Objective
    accumulation: int
    axis_name: str | None


@flax.struct.dataclass
class ClassifierPasses:
    """Results of the classifier on the foreground and on the background."""

    foreground_logits: jax.Array
    background_logits: jax.Array
    terms: objective_lib.ClassifierTerms
    batch_stats: stats_lib.BatchStats


def create_apply(model: minmax_net.MinMaxNet) -> Callable[..., tuple[Any, Any]]:
    """`StepInputs.apply` of a model; jitted, so that equal passes are traced once."""
    return jax.jit(functools.partial(_apply, model), static_argnames="method")


def localizer_pass(inputs: StepInputs, params: Any, images: jax.Array, batch_stats: stats_lib.BatchStats, num_passes):
    """Pass r of the localizer, on images that earlier passes have erased from.

    Args:
        inputs: of the step.
        params: of the networks.
        images: [B, H, W, 3], scaled to [-1, 1].
        batch_stats: running statistics before the pass.
        num_passes: r, the number of passes before this one.
    """
    options, epoch = inputs.objective.mask, inputs.objective.epoch(inputs.step)
    draw = _FIRST_LOCALIZER_DRAW + num_passes
    (logits, class_maps), updated = _train_pass(inputs, params, batch_stats, stats_lib.WHOLE, draw, "localize", images)
    if not stats_lib.is_shared(batch_stats):
        whole = num_passes == 0
        before = stats_lib.read(batch_stats, stats_lib.WHOLE)
        updated = jax.tree.map(functools.partial(jnp.where, whole), updated, before)
    foreground_masks = masks.foreground_masks(
        logits,
        class_maps,
        images.shape[1:3],
        options=options,
        epoch=epoch,
        background_classes=inputs.objective.background_classes,
        axis_name=inputs.axis_name,
    )
    if options.gradient == "flow" and options.flow_epoch:
        stopped = lax.stop_gradient(foreground_masks)
        foreground_masks = jnp.where(epoch >= options.flow_epoch, foreground_masks, stopped)
    batch_stats = stats_lib.write(batch_stats, stats_lib.WHOLE, updated)
    return erasing.LocalizerPass(logits=logits, masks=foreground_masks, batch_stats=batch_stats)


def classify(inputs: StepInputs, params: Any, erased: erasing.Erased) -> ClassifierPasses:
    """The classifier on the foreground of the original images, on their background, and on the objective's views.

    Of an image without a region, the foreground is the whole image. Its background, which no term reads, is still what
    its mask leaves: an empty image would distort the statistics of batch norm that the others are normalized by.

    Args:
        inputs: of the step.
        params: of the networks.
        erased: the result of the recursion.
    """
    background_params = params
    if inputs.objective.loss.background_gradient == "mask":
        # The classifier must not learn to answer "uniform" to any hole. The masks were made with `params` themselves
        # and keep their gradient, through a shared trunk as well.
        background_params = lax.stop_gradient(params)
    foreground_masks, has_region = erased.masks, inputs.objective.has_region(inputs.labels)
    if has_region is not None:
        foreground_masks = jnp.where(has_region[:, None, None, None], foreground_masks, 1)
    batch_stats, logits = erased.batch_stats, []
    for stream, draw, side_params, side in (
        (stats_lib.FOREGROUND, _FOREGROUND_DRAW, params, foreground_masks),
        (stats_lib.BACKGROUND, _BACKGROUND_DRAW, background_params, 1 - erased.masks),
    ):
        side_logits, updated = _train_pass(
            inputs, side_params, batch_stats, stream, draw, "classify", inputs.images, side
        )
        batch_stats = stats_lib.write(batch_stats, stream, updated)
        logits.append(side_logits)
    view_logits, batch_stats = _classify_views(inputs, params, batch_stats)
    terms = objective_lib.classifier_terms(
        *logits,
        erased.masks,
        inputs.labels,
        objective=inputs.objective,
        step=inputs.step,
        view_logits=view_logits,
        axis_name=inputs.axis_name,
    )
    return ClassifierPasses(*logits, terms=terms, batch_stats=batch_stats)


def _classify_views(inputs: StepInputs, params: Any, batch_stats: stats_lib.BatchStats):
    """([B, C] logits of each of the objective's views, statistics).

    Inference never classifies whole or randomly masked images, so only a shared set of statistics counts them.
    """
    logits = {}
    for view in inputs.objective.views:
        if view == "whole":
            stream, draw, seen = stats_lib.WHOLE, _WHOLE_DRAW, jnp.ones_like(inputs.images[..., :1])
        else:
            stream, draw, seen = stats_lib.FOREGROUND, _RANDOM_DRAW, _draw_masks(inputs)
        logits[view], updated = _train_pass(inputs, params, batch_stats, stream, draw, "classify", inputs.images, seen)
        if stats_lib.is_shared(batch_stats):
            batch_stats = stats_lib.write(batch_stats, stream, updated)
    return logits, batch_stats


def _draw_masks(inputs: StepInputs) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in, (0, None))(inputs.sample_keys, _RANDOM_MASKS_DRAW)
    omega = inputs.objective.mask.omega
    return random_masks.random_masks(keys, inputs.images.shape[1:3], omega=omega, dtype=inputs.images.dtype)


def _train_pass(
    inputs: StepInputs, params: Any, batch_stats: stats_lib.BatchStats, stream: str, draw, method: str, *arrays
):
    """`_apply`, one micro-batch after another, with the statistics of a stream."""

    def apply(params, sample_keys, *arrays):
        return inputs.apply(params, stats_lib.read(batch_stats, stream), sample_keys, draw, *arrays, method=method)

    return microbatches.apply_in_parts(apply, inputs.accumulation, params, inputs.sample_keys, *arrays)


def _apply(model: minmax_net.MinMaxNet, params: Any, batch_stats: Any, sample_keys: jax.Array, draw, *arrays, method):
    """(result, updated statistics) of a method in training mode."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(sample_keys, draw)
    return update.apply_in_training(model, params, batch_stats, *arrays, sample_keys=keys, method=method)
