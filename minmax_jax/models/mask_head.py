"""Mask head: a learned map, from finer stages than the class maps, that is trained by the classifier's terms alone."""

from collections.abc import Mapping

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax.models import decoder, trunks
from minmax_jax.ops import resize

_STRIDES = (4, 16)  # minimum and maximum of the stages that are read


class MaskHead(nn.Module):
    """What `masks.foreground_masks` reads in place of the class maps: their values, and a learned map on top.

    The learned map starts as 0. The class maps pass no gradient here: they learn the classes, by their pooling.

    Attributes:
        width: channels.
        alignment: where the features lie, as in `masks.MaskOptions`.
    """

    width: int = 32
    alignment: str = "corners"

    @nn.compact
    def __call__(self, stages: trunks.Stages | jax.Array, class_maps: jax.Array) -> jax.Array:
        """Maps at the size of the finest stage that is read.

        Args:
            stages: what the trunk returned; of those with a stride from 4 to 16 all are read, without one the deepest.
            class_maps: [B, h, w, C].

        Returns:
            [B, h', w', C].
        """
        if not isinstance(stages, Mapping):
            stages = {_STRIDES[1]: stages}
        read = {stride: features for stride, features in stages.items() if _STRIDES[0] <= stride <= _STRIDES[1]}
        x = decoder.sum_stages(read or {max(stages): trunks.last_features(stages)}, self.width, self.alignment)
        x = nn.relu(nn.LayerNorm(name="norm")(x))
        learned = nn.Dense(1, kernel_init=nn.initializers.zeros, name="mask")(x)
        class_maps = lax.stop_gradient(class_maps).astype(jnp.float32)
        return learned + resize.resize_bilinear(class_maps, x.shape[1:3], alignment=self.alignment)
