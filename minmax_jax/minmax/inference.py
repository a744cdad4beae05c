"""Inference: predicted class and foreground mask of unlabelled images."""

from collections.abc import Callable
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from minmax_jax import losses, masks
from minmax_jax.method import DISAGREEMENT, Prediction
from minmax_jax.minmax.objective import Objective
from minmax_jax.models import minmax_net, trunks
from minmax_jax.ops import canvas
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training import views as views_lib

_PUBLISHED = Objective()


@flax.struct.dataclass
class Localization:
    """Class and mask of B images.

    Attributes:
        classes: [B] int32, the classifier's most probable class.
        probabilities: [B, C] of the classes, given the foreground.
        masks: [B, H, W, 1] foreground masks in [0, 1]; at least 0.5 is foreground. 0 everywhere for a class without a
            region.
        foreground_entropy: [B] of the classes given the foreground, in nats; low where the region determines the class.
        background_entropy: [B] of the classes given the background, in nats; high where no part of an object is left.
            Without meaning for a class without a region.
        localizer_classes: [B] int32, the localizer's most probable class.
        view_disagreement: [B] mean absolute difference of a view's mask from the mean, of several flips or scales.

    Example:
        Shapes of the answer for four images of 64 pixels and three classes, without running the networks:

        >>> import functools
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> model = mm.create_model(mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4), num_classes=3)
        >>> tx, images = mm.create_optimizer("sgd", 0.1), jnp.zeros((4, 64, 64, 3))
        >>> create = functools.partial(mm.create_train_state, image_size=(64, 64), model=model, tx=tx)
        >>> state = jax.eval_shape(create, jax.random.key(0))
        >>> localize = functools.partial(mm.localize, model=model)
        >>> found = jax.eval_shape(localize, state.params, state.batch_stats, images)
        >>> found.classes.shape, found.probabilities.shape, found.masks.shape
        ((4,), (4, 3), (4, 64, 64, 1))
    """

    classes: jax.Array
    probabilities: jax.Array
    masks: jax.Array
    foreground_entropy: jax.Array
    background_entropy: jax.Array
    localizer_classes: jax.Array
    view_disagreement: jax.Array | None = None


def localize(
    params: Any,
    batch_stats: stats_lib.BatchStats,
    images: jax.Array,
    *,
    model: minmax_net.MinMaxNet,
    objective: Objective = _PUBLISHED,
    num_steps: jax.Array | int = 0,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> Localization:
    """Predicts class and mask of images. Nothing is erased.

    With classes without a region: where the localizer names one, the classifier reads the whole image, as in training.
    If it then names another class, the mask is that of the classes that it finds probable. Where the classifier names
    a class without a region, by the mean over all views, the mask is empty.

    Args:
        params: parameters of the model, as in `TrainState`.
        batch_stats: running statistics of each stream, as in `TrainState`.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1].
        model: the networks.
        objective: of the training; its masks and its classes without a region are those of inference.
        num_steps: completed training steps; they matter for a threshold that grows.
        flip_horizontal: test-time augmentation: masks (flipped back), probabilities and entropies are means over the
            image and its mirror image. Each view costs as much as the first.
        flip_vertical: the same with top and bottom exchanged; both flips together give four views.
        scales: the same over sizes of the images, as in `views.Views`.

    Example:
        With an untrained model, so that class and mask have no meaning:

        >>> import functools
        >>> import jax
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> model = mm.create_model(mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4), num_classes=3)
        >>> tx = mm.create_optimizer("sgd", 0.1)
        >>> state = mm.create_train_state(jax.random.key(0), (32, 32), model=model, tx=tx)
        >>> images = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3), minval=-1)
        >>> localize = jax.jit(functools.partial(mm.localize, model=model))
        >>> found = localize(state.params, state.batch_stats, images)
        >>> print(found.masks.shape, np.asarray(found.probabilities.sum(-1)).round(3))
        (2, 32, 32, 1) [1. 1.]
    """
    found = predict(
        {"params": params, "batch_stats": batch_stats, "step": num_steps},
        images,
        model=model,
        objective=objective,
        views=views_lib.Views(flip_horizontal, flip_vertical, scales),
    )
    return Localization(
        classes=jnp.argmax(found.probabilities, axis=-1),
        probabilities=found.probabilities,
        masks=found.masks,
        foreground_entropy=found.scores["foreground_entropy"],
        background_entropy=found.scores["background_entropy"],
        localizer_classes=found.scores["localizer_class"],
        view_disagreement=found.scores.get(DISAGREEMENT),
    )


def predict(
    variables: dict[str, Any],
    images: canvas.Images,
    *,
    model: minmax_net.MinMaxNet,
    objective: Objective,
    views: views_lib.Views = views_lib.ONE,
) -> Prediction:
    """`localize` as a `Prediction`.

    Args:
        variables: "params", "batch_stats" and the "step" they belong to.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1], or a `Canvas`.
        model: the networks.
        objective: of the training.
        views: of each image.
    """
    predict_view = functools.partial(_predict_view, variables, model=model, objective=objective)
    found = views_lib.predict(predict_view, images, views=views, background_classes=objective.background_classes)
    scores = dict(found.scores)
    localizer_class = jnp.argmax(scores.pop("localizer_probabilities"), axis=-1)
    return found.replace(scores={"localizer_class": localizer_class} | scores)


def _predict_view(
    variables: dict[str, Any], images: canvas.Images, *, model: minmax_net.MinMaxNet, objective: Objective
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Masks and scores of one view of images in [-1, 1]."""

    def classify(stream, seen):
        return model.apply(stats_lib.collections(variables, stream), images, seen, method="classify")

    logits, create_masks = _localize(variables, images, model=model, objective=objective)
    foreground = create_masks(logits)
    if not objective.background_classes:
        foreground_logits = classify(stats_lib.FOREGROUND, foreground)
    else:
        is_whole = masks.is_background(jnp.argmax(logits, axis=-1), objective.background_classes)[:, None]
        seen = jnp.where(is_whole[..., None, None], 1, foreground)
        foreground_logits = classify(stats_lib.FOREGROUND, seen)
        foreground = create_masks(jnp.where(is_whole, foreground_logits, logits))
    background_logits = classify(stats_lib.BACKGROUND, 1 - foreground)
    return foreground, {
        "probabilities": jax.nn.softmax(foreground_logits),
        "localizer_probabilities": jax.nn.softmax(logits),
        "foreground_entropy": losses.conditional_entropy(foreground_logits),
        "background_entropy": losses.conditional_entropy(background_logits),
    }


def localizer_masks(
    variables: dict[str, Any], images: canvas.Images, *, model: minmax_net.MinMaxNet, objective: Objective
) -> tuple[jax.Array, jax.Array]:
    """The localizer alone: its [B, C] logits, and [B, H, W, 1] masks.

    Args:
        variables: "params", "batch_stats" and the "step" they belong to.
        images: [B, H, W, 3], scaled to [-1, 1], or a `Canvas`.
        model: the networks.
        objective: of the training.
    """
    logits, create_masks = _localize(variables, images, model=model, objective=objective)
    return logits, create_masks(logits)


def _localize(
    variables: dict[str, Any], images: canvas.Images, *, model: minmax_net.MinMaxNet, objective: Objective
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """The localizer's [B, C] logits, and the function from the logits that weigh its maps to [B, H, W, 1] masks."""
    network = stats_lib.collections(variables, stats_lib.WHOLE)
    logits, class_maps = model.apply(network, images, method="localize")
    pixels, sizes = canvas.split(images)

    def create_masks(logits):
        return objective.inference_masks(
            logits, class_maps, pixels.shape[1:3], num_steps=variables["step"], sizes=sizes
        )

    return logits, create_masks


def trunk_stages(variables: dict[str, Any], images: canvas.Images, *, model: minmax_net.MinMaxNet) -> trunks.Stages:
    """The features of the localizer's trunk.

    Args:
        variables: "params" and "batch_stats", as in `TrainState`.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1], or a `Canvas`.
        model: the networks.

    Returns:
        {output stride: [B, h, w, K]}.
    """
    network = stats_lib.collections(variables, stats_lib.WHOLE)
    return model.apply(network, canvas.normalize(images), method="stages")
