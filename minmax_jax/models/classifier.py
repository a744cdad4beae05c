"""The classifier: class logits of a masked image."""

import flax.linen as nn
import jax

from minmax_jax.base.errors import OptionError
from minmax_jax.models import trunks
from minmax_jax.ops import free_sizes, resize


def check_size(scale: float, size: tuple[free_sizes.Size, free_sizes.Size]) -> None:
    """Raises OptionError where no pixel of images of that height and width is left for the classifier."""
    if any(map(free_sizes.is_free, size)):
        return
    height, width = size
    if int(scale * min(size)) < 1:
        raise OptionError(
            f"classifier_scale={scale} leaves no pixel of images of {height}x{width}: it must be at least"
            f" 1 / {min(size)}."
        )


class Classifier(nn.Module):
    """Logits of an image multiplied by a mask.

    Attributes:
        trunk: any module from [B, H, W, 3] images, called with `train`, to `trunks.Stages`.
        head: any module from ([B, h, w, K] features, sample keys) to ([B, C] logits, [B, h, w, C] class maps).
        scale: size of the trunk's input, as a share of the image's height and width.
    """

    trunk: nn.Module
    head: nn.Module
    scale: float = 0.5

    def __call__(
        self,
        images: jax.Array,
        masks: jax.Array,
        *,
        train: bool = False,
        sample_keys: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, 3] images and [B, H, W, 1] masks to [B, C] logits."""
        check_size(self.scale, images.shape[1:3])
        size = tuple(free_sizes.cut_share(side, self.scale, name="classifier_scale") for side in images.shape[1:3])
        stages = trunks.apply(self.trunk, resize.resize_bilinear(images * masks, size), train=train)
        logits, _ = self.head(trunks.last_features(stages), sample_keys)
        return logits
