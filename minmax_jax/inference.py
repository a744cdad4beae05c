"""What is in an image, and where: the trained networks on images that nothing is known of."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from minmax_jax import images as images_lib
from minmax_jax import losses, masks, streams
from minmax_jax.models import minmax_net


@flax.struct.dataclass
class Localization:
    """The answer for B images.

    Attributes:
        classes: [B] int32, the classifier's class: the highest score of the foreground.
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
    batch_stats: streams.BatchStats,
    images: jax.Array,
    *,
    model: minmax_net.MinMaxNet,
    sigma: jax.Array | float = 0.5,
    omega: float = 8.0,
    normalization: str = "image",
    alignment: str = "corners",
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
    """
    images = images_lib.normalize(images)

    def apply(stream, method, *inputs):
        variables = {"params": params, "batch_stats": streams.read(batch_stats, stream)}
        return model.apply(variables, *inputs, method=method)

    logits, class_maps = apply(streams.WHOLE, "localize", images)
    foreground = masks.foreground_masks(
        logits,
        class_maps,
        images.shape[1:3],
        sigma=sigma,
        omega=omega,
        normalization=normalization,
        alignment=alignment,
    )
    foreground_logits = apply(streams.FOREGROUND, "classify", images, foreground)
    background_logits = apply(streams.BACKGROUND, "classify", images, 1 - foreground)
    return Localization(
        classes=jnp.argmax(foreground_logits, axis=-1),
        probabilities=jax.nn.softmax(foreground_logits),
        masks=foreground,
        foreground_entropy=losses.conditional_entropy(foreground_logits),
        background_entropy=losses.conditional_entropy(background_logits),
        localizer_classes=jnp.argmax(logits, axis=-1),
    )
