"""Min-max entropy as a method: its training step and its inference behind the common contract."""

import functools
from typing import Any

import jax
import optax

from minmax_jax.method import Method, Prediction
from minmax_jax.minmax import inference, recorded_erasing
from minmax_jax.minmax.objective import Objective
from minmax_jax.minmax.step import train_step
from minmax_jax.models.minmax_net import MinMaxNet
from minmax_jax.ops import intensity
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training.state import create_train_state

LOG_TERMS = ("localizer_loss", "foreground_loss", "background_loss", "size_loss")


def create_method(
    model: MinMaxNet,
    tx: optax.GradientTransformation,
    objective: Objective,
    *,
    accumulation: int = 1,
    average_decay: float = 0.0,
    shared_statistics: bool = False,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> Method:
    """The method of arXiv 1907.12934.

    Args:
        model: localizer and classifier.
        tx: the optimizer.
        objective: the training objective; its masks and its classes without a region are those of inference.
        accumulation: micro-batches, as in `step.train_step`.
        average_decay: of the moving average of the variables, as in `step.train_step`; 0 keeps none.
        shared_statistics: as in `state.create_train_state`.
        flip_horizontal: test-time augmentation, as in `inference.localize`.
        flip_vertical: as `flip_horizontal`.
        scales: as `flip_horizontal`.
    """
    return Method(
        init=functools.partial(
            create_train_state, model=model, tx=tx, shared_statistics=shared_statistics, average=average_decay > 0
        ),
        train_step=functools.partial(
            train_step, model=model, tx=tx, objective=objective, accumulation=accumulation, average_decay=average_decay
        ),
        predict=functools.partial(
            predict,
            model=model,
            objective=objective,
            flip_horizontal=flip_horizontal,
            flip_vertical=flip_vertical,
            scales=scales,
        ),
        log_terms=(*LOG_TERMS, *(f"{name}_loss" for name in objective.further_terms)),
        classify=functools.partial(classify, model=model),
        stages=functools.partial(inference.trunk_stages, model=model),
        record_erasing=functools.partial(record_erasing, model=model, objective=objective),
    )


def predict(
    variables: dict[str, Any],
    images: jax.Array,
    *,
    model: MinMaxNet,
    objective: Objective,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> Prediction:
    """`inference.localize` with the masks of training, as a `Prediction`.

    Args:
        variables: "params", "batch_stats" and the "step" they belong to.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1].
        model: the networks.
        objective: of the training.
        flip_horizontal: as in `inference.localize`.
        flip_vertical: as in `inference.localize`.
        scales: as in `inference.localize`.
    """
    localization = inference.localize(
        variables["params"],
        variables["batch_stats"],
        images,
        model=model,
        **objective.inference_masks(variables["step"]),
        flip_horizontal=flip_horizontal,
        flip_vertical=flip_vertical,
        scales=scales,
    )
    scores = {
        "localizer_class": localization.localizer_classes,
        "foreground_entropy": localization.foreground_entropy,
        "background_entropy": localization.background_entropy,
        inference.DISAGREEMENT: localization.view_disagreement,
    }
    return Prediction(
        probabilities=localization.probabilities,
        masks=localization.masks,
        scores={name: values for name, values in scores.items() if values is not None},
    )


def record_erasing(
    variables: dict[str, Any], images: jax.Array, labels: jax.Array, *, model: MinMaxNet, objective: Objective
) -> list[recorded_erasing.RecordedPass]:
    """The passes of recursive erasing of the training, by the trained localizer, without test-time augmentation.

    Args:
        variables: as in `predict`.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1].
        labels: [B] classes.
        model: the networks.
        objective: of the training.

    Returns:
        A pass for each erasure; none if the training did not erase.
    """
    return recorded_erasing.record(
        functools.partial(
            inference.localizer_masks, variables, model=model, **objective.inference_masks(variables["step"])
        ),
        intensity.normalize(images),
        labels,
        num_erasures=objective.erasing.num_erasures,
        decay=objective.erasing.decay,
    )


def classify(variables: dict[str, Any], images_and_masks: jax.Array, *, model: MinMaxNet) -> jax.Array:
    """The classifier's probabilities [B, C] given what masks show.

    Args:
        variables: as in `predict`.
        images_and_masks: [B, H, W, 4], images scaled to [-1, 1] and masks.
        model: the networks.
    """
    network = stats_lib.collections(variables, stats_lib.FOREGROUND)
    images, masks = images_and_masks[..., :3], images_and_masks[..., 3:]
    return jax.nn.softmax(model.apply(network, images, masks, method="classify"))
