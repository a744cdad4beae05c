"""The decoder of the second stage: from the features of a frozen trunk and the image to a mask at half its size."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from minmax_jax.models import trunks
from minmax_jax.ops import canvas, resize

STRIDE = 2  # of the mask
# Features of the first layers say less than the image itself, and would take most of the memory.
_MIN_STRIDE = 4


class Decoder(nn.Module):
    """1x1 convolutions of each stage and of the image, summed, and two more: no place looks at its neighbours.

    What surrounds a place is in the deep stages; the image lets the mask follow the outline of an object.

    Attributes:
        width: channels.
        alignment: where the features lie, as in `masks.MaskOptions`.

    Example:
        From features of output stride 8 to a mask at half the size of the image, without running it:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from minmax_jax.models import decoder
        >>> stages, images = {8: jnp.ones((1, 8, 8, 16))}, jnp.zeros((1, 64, 64, 3))
        >>> logits, _ = jax.eval_shape(decoder.Decoder().init_with_output, jax.random.key(0), stages, images)
        >>> logits.shape
        (1, 32, 32, 1)
    """

    width: int = 32
    alignment: str = "features"

    @nn.compact
    def __call__(self, stages: trunks.Stages, images: canvas.Images) -> jax.Array:
        """The logits of a mask.

        Args:
            stages: {output stride: [B, h, w, K]}, as of `select_stages`.
            images: [B, H, W, 3], scaled to [-1, 1]; H and W even. Of a `Canvas`, logits beyond the images have no
                meaning.

        Returns:
            [B, H / 2, W / 2, 1].
        """
        pixels, sizes = canvas.split(images)
        half = halve(pixels)
        x = nn.Dense(self.width, name="image")(half)
        if stages:
            features = sum_stages(stages, self.width, self.alignment, sizes)
            features = canvas.extend(features, canvas.at_stride(sizes, min(stages)))
            x += resize.resize_bilinear(features, half.shape[1:3], alignment=self.alignment)
        x = nn.relu(nn.LayerNorm(name="norm")(x))
        x = nn.relu(nn.Dense(self.width, name="hidden")(x))
        return nn.Dense(1, name="mask")(x)


def sum_stages(stages: trunks.Stages, width: int, alignment: str, sizes: jax.Array | None = None) -> jax.Array:
    """1x1 convolutions of each stage, summed at the size of the finest; for the `compact` method of a module.

    Args:
        stages: {output stride: [B, h, w, K]}, at least one.
        width: channels of the result.
        alignment: where the features lie, as in `masks.MaskOptions`; not "corners" with sizes.
        sizes: [B, 2] of the images of a `Canvas`.
    """
    total, coarser = None, 1
    for stride, features in sorted(stages.items(), reverse=True):
        # The stages differ in scale by orders of magnitude.
        features = nn.LayerNorm(name=f"norm{stride}")(features.astype(jnp.float32))
        features = nn.Dense(width, use_bias=False, name=f"stride{stride}")(features)
        if total is not None:
            # From stage to stage: for strides of convolutions the same as each to the end, in less time.
            total = canvas.extend(total, canvas.at_stride(sizes, coarser))
            features += resize.resize_bilinear(total, features.shape[1:3], alignment=alignment)
        total, coarser = features, stride
    return total


def halve(images: jax.Array) -> jax.Array:
    """[B, H, W, K] to [B, H / 2, W / 2, K], means of 2x2 pixels."""
    return nn.avg_pool(images, (STRIDE, STRIDE), (STRIDE, STRIDE))


def enlarge(masks: jax.Array, sizes: jax.Array | None = None) -> jax.Array:
    """[B, h, w, K] to [B, 2 h, 2 w, K]; each value comes back to the middle of the 2x2 pixels that `halve` took.

    Args:
        masks: of images, or of a `Canvas`.
        sizes: [B, 2] of its images, in pixels.
    """
    masks = canvas.extend(masks, canvas.at_stride(sizes, STRIDE))
    size = tuple(STRIDE * side for side in masks.shape[1:3])
    return resize.resize_bilinear(masks, size, alignment="patches")


def select_stages(stages: trunks.Stages) -> trunks.Stages:
    """The stages that the decoder reads: those of stride 4 and more."""
    return {stride: features for stride, features in stages.items() if stride >= _MIN_STRIDE}
