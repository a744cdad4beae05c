"""The localizer: class scores of an image, and the class maps that they come from."""

import flax.linen as nn
import jax

from minmax_jax.models import trunks


class Localizer(nn.Module):
    """Scores and class maps of an image; `minmax_jax.masks` turns them into a mask.

    Attributes:
        trunk: any module from [B, H, W, 3] images, called with `train`, to `trunks.Stages`.
        head: any module from ([B, h, w, K] features, sample keys) to ([B, C] scores, [B, h, w, C] class maps).
    """

    trunk: nn.Module
    head: nn.Module

    def __call__(
        self, images: jax.Array, *, train: bool = False, sample_keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] images to ([B, C] scores, [B, h, w, C] class maps)."""
        return self.head(trunks.last_features(self.trunk(images, train=train)), sample_keys)
