"""Inference: predicted class and foreground mask of unlabelled images."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax import losses, masks
from minmax_jax.models import minmax_net, trunks
from minmax_jax.ops import intensity, resize
from minmax_jax.training import batch_stats as stats_lib

_GRID = 32  # greatest output stride of a trunk
# Names of scores.
DISAGREEMENT, SPREAD = "view_disagreement", "mask_spread"


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
    sigma: jax.Array | float = 0.5,
    omega: float = 8.0,
    normalization: str = "image",
    alignment: str = "corners",
    range: str = "extremes",
    background_classes: Sequence[int] = (),
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
        sigma: threshold of the masks; as in training.
        omega: steepness of the masks; as in training.
        normalization: "image" or "batch", as in `masks.foreground_masks`.
        alignment: "corners", "features" or "patches", as in `masks.foreground_masks`; as in training.
        range: "extremes" or "percentiles", as in `masks.foreground_masks`; as in training.
        background_classes: those without a region, as in `masks.foreground_masks`; as in training.
        flip_horizontal: test-time augmentation: masks (flipped back), probabilities and entropies are means over the
            image and its mirror image. Each view costs as much as the first.
        flip_vertical: the same with top and bottom exchanged; both flips together give four views.
        scales: the same over sizes of the images, as in `mean_over_views`.
    """
    images = intensity.normalize(images)

    def apply(stream, method, *inputs):
        variables = {"params": params, "batch_stats": stats_lib.read(batch_stats, stream)}
        return model.apply(variables, *inputs, method=method)

    create_masks = functools.partial(
        masks.foreground_masks,
        sigma=sigma,
        omega=omega,
        normalization=normalization,
        alignment=alignment,
        range=range,
        background_classes=background_classes,
    )

    def predict_view(images):
        """Masks and scores of one view, for `mean_over_views`."""
        logits, class_maps = apply(stats_lib.WHOLE, "localize", images)
        foreground = create_masks(logits, class_maps, images.shape[1:3])
        if not background_classes:
            foreground_logits = apply(stats_lib.FOREGROUND, "classify", images, foreground)
        else:
            is_whole = masks.is_background(jnp.argmax(logits, axis=-1), background_classes)[:, None]
            seen = jnp.where(is_whole[..., None, None], 1, foreground)
            foreground_logits = apply(stats_lib.FOREGROUND, "classify", images, seen)
            foreground = create_masks(jnp.where(is_whole, foreground_logits, logits), class_maps, images.shape[1:3])
        background_logits = apply(stats_lib.BACKGROUND, "classify", images, 1 - foreground)
        scores = {
            "probabilities": jax.nn.softmax(foreground_logits),
            "localizer_probabilities": jax.nn.softmax(logits),
            "foreground_entropy": losses.conditional_entropy(foreground_logits),
            "background_entropy": losses.conditional_entropy(background_logits),
        }
        return foreground, scores

    foreground, scores = mean_over_views(
        predict_view, images, flip_horizontal=flip_horizontal, flip_vertical=flip_vertical, scales=scales
    )
    return Localization(
        classes=jnp.argmax(scores["probabilities"], axis=-1),
        probabilities=scores["probabilities"],
        masks=without_background(foreground, scores["probabilities"], background_classes),
        foreground_entropy=scores["foreground_entropy"],
        background_entropy=scores["background_entropy"],
        localizer_classes=jnp.argmax(scores["localizer_probabilities"], axis=-1),
        view_disagreement=scores.get(DISAGREEMENT),
    )


def without_background(foreground: jax.Array, probabilities: jax.Array, background_classes: Sequence[int]) -> jax.Array:
    """Masks [B, H, W, 1] with 0 everywhere where the most probable class has no region.

    Args:
        foreground: [B, H, W, 1] masks.
        probabilities: [B, C] of the classes.
        background_classes: those without a region.
    """
    if not background_classes:
        return foreground
    is_empty = masks.is_background(jnp.argmax(probabilities, axis=-1), background_classes)
    return jnp.where(is_empty[:, None, None, None], 0, foreground)


def localizer_masks(
    variables: dict[str, Any], images: jax.Array, *, model: minmax_net.MinMaxNet, **mask_options
) -> tuple[jax.Array, jax.Array]:
    """The localizer alone: its [B, C] logits, and [B, H, W, 1] masks.

    Args:
        variables: "params" and "batch_stats", as in `TrainState`.
        images: [B, H, W, 3], scaled to [-1, 1].
        model: the networks.
        **mask_options: of `masks.foreground_masks`.
    """
    network = stats_lib.collections(variables, stats_lib.WHOLE)
    logits, class_maps = model.apply(network, images, method="localize")
    return logits, masks.foreground_masks(logits, class_maps, images.shape[1:3], **mask_options)


def trunk_stages(variables: dict[str, Any], images: jax.Array, *, model: minmax_net.MinMaxNet) -> trunks.Stages:
    """The features of the localizer's trunk.

    Args:
        variables: "params" and "batch_stats", as in `TrainState`.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1].
        model: the networks.

    Returns:
        {output stride: [B, h, w, K]}.
    """
    network = stats_lib.collections(variables, stats_lib.WHOLE)
    return model.apply(network, intensity.normalize(images), method="stages")


def mean_over_views(
    predict_view: Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array]]],
    images: jax.Array,
    *,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Means over the scales and mirror images of [B, H, W, 3] images.

    Args:
        predict_view: images of any size to ([B, h, w, 1] masks of that size, scores [B, ...]).
        images: scaled to [-1, 1].
        flip_horizontal: whether mirror images count; masks are flipped back.
        flip_vertical: the same with top and bottom exchanged.
        scales: sizes, as shares of the images'; sides are rounded to multiples of 32. Masks are resized back.

    Returns:
        [B, H, W, 1] masks, and the scores; of several views also `DISAGREEMENT` [B], the mean absolute difference
        of a view's mask from the mean.
    """
    foregrounds, scores = [], []
    for scale in scales:
        sides = [view_side(side, scale) for side in images.shape[1:3]]
        resized = resize.resize_bilinear(images, tuple(sides))
        of_flips, of_scale = _flipped_views(predict_view, resized, flip_horizontal, flip_vertical)
        foregrounds += [resize.resize_bilinear(foreground, images.shape[1:3]) for foreground in of_flips]
        scores.append(of_scale)
    if len(foregrounds) == 1:
        return foregrounds[0], scores[0]
    views = jnp.stack(foregrounds)
    mean = jnp.mean(views, axis=0)
    scores = jax.tree.map(lambda *arrays: jnp.mean(jnp.stack(arrays), axis=0), *scores)
    return mean, scores | {DISAGREEMENT: jnp.mean(jnp.abs(views - mean), axis=(0, 2, 3, 4))}


def view_side(side: int, scale: float) -> int:
    """The height or width at which an image is seen at a scale: a multiple of 32, unless the scale is 1."""
    return side if scale == 1 else max(1, round(scale * side / _GRID)) * _GRID


def _flipped_views(predict_view, images: jax.Array, horizontal: bool, vertical: bool):
    """The masks of images [B, H, W, 3] and of their mirror images, flipped back, and the means of the scores."""
    flips = [(), *[(2,)] * horizontal, *[(1,)] * vertical, *[(1, 2)] * (horizontal and vertical)]
    if len(flips) == 1:
        foreground, scores = predict_view(images)
        return [foreground], scores
    # A loop compiles the networks once and holds the activations of one view only.
    foregrounds, scores = lax.map(predict_view, jnp.stack([jnp.flip(images, axes) for axes in flips]))
    unflipped = [jnp.flip(masks_of_flip, axes) for masks_of_flip, axes in zip(foregrounds, flips)]
    return unflipped, jax.tree.map(lambda array: jnp.mean(array, axis=0), scores)
