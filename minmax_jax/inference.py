"""What is in an image, and where: the trained networks on images that nothing is known of."""

from typing import Any

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax import batch_stats as batch_stats_lib
from minmax_jax import losses, masks
from minmax_jax.models import minmax_net
from minmax_jax.ops import intensity


@flax.struct.dataclass
class Localization:
    """The answer for B images.

    Attributes:
        classes: [B] int32, the classifier's class: the most probable.
        probabilities: [B, C] of the classes, from the foreground.
        masks: [B, H, W, 1] foreground masks in [0, 1]; at least 0.5 is foreground.
        foreground_entropy: [B] of the classes given the foreground, in nats; low where the region tells the class.
        background_entropy: [B] of the classes given the rest, in nats; high where nothing was overlooked.
        localizer_classes: [B] int32, the localizer's class.
    """

    classes: jax.Array
    probabilities: jax.Array
    masks: jax.Array
    foreground_entropy: jax.Array
    background_entropy: jax.Array
    localizer_classes: jax.Array


def localize(
    params: Any,
    batch_stats: batch_stats_lib.BatchStats,
    images: jax.Array,
    *,
    model: minmax_net.MinMaxNet,
    sigma: jax.Array | float = 0.5,
    omega: float = 8.0,
    normalization: str = "image",
    alignment: str = "corners",
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
) -> Localization:
    """Finds the class of images and the region that it rests on. Nothing is erased.

    Args:
        params: parameters of the model, as in `TrainState`.
        batch_stats: running statistics of each stream, as in `TrainState`.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1].
        model: the networks.
        sigma: threshold of the masks; as in training.
        omega: steepness of the masks; as in training.
        normalization: "image" or "batch", as in `masks.foreground_masks`.
        alignment: "corners" or "features", as in `masks.foreground_masks`; as in training.
        flip_horizontal: whether each image is also looked at with left and right exchanged. Masks, turned back,
            probabilities and entropies are means over all views; each view costs as much as the first.
        flip_vertical: likewise top and bottom; with both, an image is looked at in four ways.
    """
    images = intensity.normalize(images)

    def apply(stream, method, *inputs):
        variables = {"params": params, "batch_stats": batch_stats_lib.read(batch_stats, stream)}
        return model.apply(variables, *inputs, method=method)

    def find(images):
        logits, class_maps = apply(batch_stats_lib.WHOLE, "localize", images)
        foreground = masks.foreground_masks(
            logits,
            class_maps,
            images.shape[1:3],
            sigma=sigma,
            omega=omega,
            normalization=normalization,
            alignment=alignment,
        )
        foreground_logits = apply(batch_stats_lib.FOREGROUND, "classify", images, foreground)
        background_logits = apply(batch_stats_lib.BACKGROUND, "classify", images, 1 - foreground)
        answers = {
            "probabilities": jax.nn.softmax(foreground_logits),
            "localizer_probabilities": jax.nn.softmax(logits),
            "foreground_entropy": losses.conditional_entropy(foreground_logits),
            "background_entropy": losses.conditional_entropy(background_logits),
        }
        return foreground, answers

    foreground, answers = _mean_over_flips(find, images, flip_horizontal, flip_vertical)
    return Localization(
        classes=jnp.argmax(answers["probabilities"], axis=-1),
        probabilities=answers["probabilities"],
        masks=foreground,
        foreground_entropy=answers["foreground_entropy"],
        background_entropy=answers["background_entropy"],
        localizer_classes=jnp.argmax(answers["localizer_probabilities"], axis=-1),
    )


def _mean_over_flips(find, images: jax.Array, horizontal: bool, vertical: bool):
    """Masks and answers for images [B, H, W, 3]: means of those for the images and for their mirror images."""
    flips = [(), *[(2,)] * horizontal, *[(1,)] * vertical, *[(1, 2)] * (horizontal and vertical)]
    if len(flips) == 1:
        return find(images)
    # In a loop, so that the networks are compiled once and the activations of one pass are held.
    foregrounds, answers = lax.map(find, jnp.stack([jnp.flip(images, axes) for axes in flips]))
    turned_back = jnp.stack([jnp.flip(masks_of_flip, axes) for masks_of_flip, axes in zip(foregrounds, flips)])
    return jax.tree.map(lambda array: jnp.mean(array, axis=0), (turned_back, answers))
