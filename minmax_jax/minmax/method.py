"""Min-max entropy as a method: its training step and its inference behind the common contract."""

import dataclasses
import functools
from typing import Any

import jax
import optax

from minmax_jax.method import Method, RecordedPass, Score
from minmax_jax.minmax import inference, recorded_erasing
from minmax_jax.minmax.objective import Objective
from minmax_jax.minmax.step import train_step
from minmax_jax.models.minmax_net import MinMaxNet
from minmax_jax.ops import canvas, intensity
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training.setup import Setup
from minmax_jax.training.state import create_train_state
from minmax_jax.training.views import ONE, Views

TITLE = "min-max entropy ([arXiv 1907.12934](https://arxiv.org/abs/1907.12934))"
CITE = (
    "Weakly Supervised Localization using Min-Max Entropy: an Interpretable Framework (2019)",
    "https://arxiv.org/abs/1907.12934",
)
LOG_TERMS = ("localizer_loss", "foreground_loss", "background_loss", "size_loss")
# Limits as shares of log C: the foreground should identify the class, the background should not.
SCORES = {
    "foreground_entropy": Score(
        title="foreground entropy",
        description="Entropy of the classes given the foreground, in nats; low where the region identifies the class.",
        kind="entropy",
        unit="nats",
        high=0.5,
        flag="the {region} does not identify the class (foreground entropy is high)",
    ),
    "background_entropy": Score(
        title="background entropy",
        description="Entropy of the classes given the rest, in nats; high, up to log C, where no part of an object is"
        " left.",
        kind="entropy",
        unit="nats",
        needs_region=True,
        low=0.5,
        flag="the rest of the image identifies a class as well (background entropy is low)",
    ),
    "localizer_class": Score(title="localizer", kind="class", flag="localizer and classifier name different classes"),
}


def create(options: Objective, setup: Setup) -> Method:
    """The method of a run.

    Args:
        options: the objective, without what the data decide.
        setup: networks, optimizer and data of the run.
    """
    objective = dataclasses.replace(
        options, steps_per_epoch=setup.steps_per_epoch, background_classes=setup.background_classes
    )
    return create_method(
        setup.create_model(),
        setup.tx,
        objective,
        accumulation=setup.accumulation,
        average_decay=setup.average_decay,
        shared_statistics=setup.shared_statistics,
        views=setup.views,
    )


def create_method(
    model: MinMaxNet,
    tx: optax.GradientTransformation,
    objective: Objective,
    *,
    accumulation: int = 1,
    average_decay: float = 0.0,
    shared_statistics: bool = False,
    views: Views = ONE,
) -> Method:
    """The method of arXiv 1907.12934.

    Args:
        model: localizer and classifier.
        tx: the optimizer.
        objective: the training objective; its masks and its classes without a region are those of inference.
        accumulation: micro-batches, as in `step.train_step`.
        average_decay: of the moving average of the variables, as in `step.train_step`; 0 keeps none.
        shared_statistics: as in `state.create_train_state`.
        views: test-time augmentation.

    Example:
        >>> import minmax_jax as mm
        >>> from minmax_jax.minmax import method as minmax
        >>> model = mm.create_model(mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4), num_classes=3)
        >>> found = minmax.create_method(model, mm.create_optimizer("sgd", 0.1), mm.Objective())
        >>> found.log_terms
        ('localizer_loss', 'foreground_loss', 'background_loss', 'size_loss')
    """
    return Method(
        init=functools.partial(
            create_train_state, model=model, tx=tx, shared_statistics=shared_statistics, average=average_decay > 0
        ),
        train_step=functools.partial(
            train_step, model=model, tx=tx, objective=objective, accumulation=accumulation, average_decay=average_decay
        ),
        predict=functools.partial(inference.predict, model=model, objective=objective, views=views),
        log_terms=(*LOG_TERMS, *(f"{name}_loss" for name in objective.further_terms)),
        scores=SCORES,
        title=TITLE,
        cite=CITE,
        classify=functools.partial(classify, model=model),
        stages=functools.partial(inference.trunk_stages, model=model),
        reads_canvases=model.reads_canvases,
        record_erasing=functools.partial(record_erasing, model=model, objective=objective)
        if objective.erasing.num_erasures
        else None,
    )


def record_erasing(
    variables: dict[str, Any], images: jax.Array, labels: jax.Array, *, model: MinMaxNet, objective: Objective
) -> list[RecordedPass]:
    """The passes of recursive erasing of the training, by the trained localizer, without test-time augmentation.

    Args:
        variables: as in `inference.predict`.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1].
        labels: [B] classes.
        model: the networks.
        objective: of the training.

    Returns:
        A pass for each erasure; none if the training did not erase.
    """
    return recorded_erasing.record(
        functools.partial(inference.localizer_masks, variables, model=model, objective=objective),
        intensity.normalize(images),
        labels,
        num_erasures=objective.erasing.num_erasures,
        decay=objective.erasing.decay,
    )


def classify(variables: dict[str, Any], images_and_masks: canvas.Images, *, model: MinMaxNet) -> jax.Array:
    """The classifier's probabilities [B, C] given what masks show.

    Args:
        variables: as in `inference.predict`.
        images_and_masks: [B, H, W, 4], images scaled to [-1, 1] and masks; or a `Canvas` of them.
        model: the networks.
    """
    network = stats_lib.collections(variables, stats_lib.FOREGROUND)
    pixels, sizes = canvas.split(images_and_masks)
    images = canvas.join(pixels[..., :3], sizes)
    return jax.nn.softmax(model.apply(network, images, pixels[..., 3:], method="classify"))
