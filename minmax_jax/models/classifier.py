"""The classifier: what a masked image shows."""

import flax.linen as nn
import jax

from minmax_jax.models import pooling
from minmax_jax.ops import resize


class Classifier(nn.Module):
    """Scores of the part of an image that a mask leaves.

    Attributes:
        trunk: any module from [B, H, W, 3] images, called with `train`, to a [B, h, w, K] feature map.
        head: the pooling head.
        scale: size of what the trunk sees, as a share of the image's height and width.
    """

    trunk: nn.Module
    head: pooling.WildcatHead
    scale: float = 0.5

    def __call__(
        self,
        images: jax.Array,
        masks: jax.Array,
        *,
        train: bool = False,
        sample_keys: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, 3] images seen through [B, H, W, 1] masks to [B, C] scores."""
        size = tuple(int(self.scale * side) for side in images.shape[1:3])
        features = self.trunk(resize.resize_bilinear(images * masks, size), train=train)
        logits, _ = self.head(features, sample_keys)
        return logits
