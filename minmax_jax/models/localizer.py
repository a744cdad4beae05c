"""The localizer: class logits of an image, and the class maps that they come from."""

import flax.linen as nn
import jax

from minmax_jax.models import trunks
from minmax_jax.ops import canvas


class Localizer(nn.Module):
    """Logits and class maps of an image; `minmax_jax.masks` turns them into a mask.

    Attributes:
        trunk: any module from [B, H, W, 3] images, called with `train`, to `trunks.Stages`.
        head: any module from ([B, h, w, K] features, sample keys) to ([B, C] logits, [B, h, w, C] class maps).
        mask_head: any module from (stages, class maps) to the maps that the mask is made of; None: the class maps.
    """

    trunk: nn.Module
    head: nn.Module
    mask_head: nn.Module | None = None

    def __call__(
        self, images: canvas.Images, *, train: bool = False, sample_keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] images to ([B, C] logits, [B, h, w, C] maps of the mask)."""
        stages = trunks.apply(self.trunk, images, train=train)
        logits, class_maps = self.head(trunks.last_features(stages), sample_keys, **trunks.valid(images, stages))
        return logits, class_maps if self.mask_head is None else self.mask_head(stages, class_maps)
