"""The localizer: where in the image is what its class rests on."""

import flax.linen as nn
import jax

from minmax_jax.models import pooling


class Localizer(nn.Module):
    """Scores and class maps of an image; `minmax_jax.masks` makes the mask of them.

    Attributes:
        trunk: any module from [B, H, W, 3] images, called with `train`, to a [B, h, w, K] feature map.
        head: the pooling head.
    """

    trunk: nn.Module
    head: pooling.WildcatHead

    def __call__(
        self, images: jax.Array, *, train: bool = False, sample_keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] images to ([B, C] scores, [B, h, w, C] class maps)."""
        return self.head(self.trunk(images, train=train), sample_keys)
