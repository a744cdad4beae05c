"""Heads of localizer and classifier: class maps from features, and class scores from the maps.

All have one interface, ([B, h, w, K] features, [B] random keys or None) -> ([B, C] logits, [B, h, w, C] class maps).
Given the [B, 2] sizes of images in the features as well, logits are taken over what belongs to the images. Maps and
logits are at least float32. Heads differ in how a map becomes a logit: by the mean of its highest values, by the mean
of all, by the maximum, by log-sum-exp, which lies between these two, or by a mean weighted by attention.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from minmax_jax.models import pooling
from minmax_jax.ops import canvas


class WildcatHead(nn.Module):
    """WILDCAT (Durand et al., CVPR 2017), see `pooling.wildcat_pooling`. Defaults are published values.

    Attributes:
        num_classes: C.
        modalities: M, maps per class; their mean is the class map.
        k_max: as in `wildcat_pooling`.
        k_min: as in `wildcat_pooling`.
        alpha: as in `wildcat_pooling`.
        dropout: as in `wildcat_pooling`.
        dtype: of the convolution.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> head, features = mm.heads.WildcatHead(num_classes=3), jnp.ones((2, 4, 4, 8))
        >>> (logits, class_maps), _ = jax.eval_shape(head.init_with_output, jax.random.key(0), features)
        >>> logits.shape, class_maps.shape
        ((2, 3), (2, 4, 4, 3))
    """

    num_classes: int
    modalities: int = 5
    k_max: float = 0.09
    k_min: float = 0.09
    alpha: float = 0.0
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: jax.Array, sample_keys: jax.Array | None = None, sizes: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, K] features to ([B, C] logits, [B, h, w, C] class maps)."""
        maps = _create_maps(features, self.num_classes * self.modalities, self.dtype)
        class_maps = jnp.mean(maps.reshape(*maps.shape[:-1], self.num_classes, self.modalities), axis=-1)
        logits = pooling.wildcat_pooling(
            class_maps,
            k_max=self.k_max,
            k_min=self.k_min,
            alpha=self.alpha,
            dropout=self.dropout,
            sample_keys=sample_keys,
            sizes=sizes,
        )
        return logits, class_maps


class MeanHead(nn.Module):
    """Global average pooling: the maps are class activation maps (Zhou et al., CVPR 2016).

    Attributes:
        num_classes: C.
        dropout: probability of dropping each value of a map before the mean.
        dtype: of the convolution.
    """

    num_classes: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: jax.Array, sample_keys: jax.Array | None = None, sizes: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, K] features to ([B, C] logits, [B, h, w, C] class maps)."""
        class_maps = _create_maps(features, self.num_classes, self.dtype)
        return pooling.mean_pooling(class_maps, dropout=self.dropout, sample_keys=sample_keys, sizes=sizes), class_maps


class MaxHead(nn.Module):
    """Global maximum pooling (Oquab et al., CVPR 2015): an image is as strong a case as its strongest location.

    Attributes:
        num_classes: C.
        dtype: of the convolution.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: jax.Array, sample_keys: jax.Array | None = None, sizes: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, K] features to ([B, C] logits, [B, h, w, C] class maps)."""
        class_maps = _create_maps(features, self.num_classes, self.dtype)
        return jnp.max(canvas.fill(class_maps, sizes, -jnp.inf), axis=(1, 2)), class_maps


class LogSumExpHead(nn.Module):
    """Log-sum-exp pooling (Pinheiro and Collobert, CVPR 2015), see `pooling.log_sum_exp_pooling`.

    Attributes:
        num_classes: C.
        sharpness: r; published: 5.
        dtype: of the convolution.
    """

    num_classes: int
    sharpness: float = 5.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: jax.Array, sample_keys: jax.Array | None = None, sizes: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, K] features to ([B, C] logits, [B, h, w, C] class maps)."""
        class_maps = _create_maps(features, self.num_classes, self.dtype)
        return pooling.log_sum_exp_pooling(class_maps, sharpness=self.sharpness, sizes=sizes), class_maps


class AttentionHead(nn.Module):
    """Attention-based multiple-instance pooling (Ilse et al., ICML 2018, equation 8), with locations as instances.

    With features h_i, the attention a is the softmax over the locations of w^T tanh(V h_i), and an image's logits are
    those of the mean of its features weighted by a. The layer of the classes is linear, so that the logits are also the
    sum over the locations of a_i times the layer's output for h_i: that product is the class map.

    Attributes:
        num_classes: C.
        width: rows of V; published: 128.
        dtype: of the layers.
    """

    num_classes: int
    width: int = 128
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: jax.Array, sample_keys: jax.Array | None = None, sizes: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, K] features to ([B, C] logits, [B, h, w, C] class maps, which add up to the logits)."""
        hidden = jnp.tanh(nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="attention_hidden")(features))
        relevance = nn.Dense(1, use_bias=False, dtype=self.dtype, name="attention")(hidden)
        attention = jax.nn.softmax(canvas.fill(_promote(relevance), sizes, -jnp.inf), axis=(1, 2))
        class_maps = attention * _create_maps(features, self.num_classes, self.dtype)
        return jnp.sum(class_maps, axis=(1, 2)), class_maps


def _create_maps(features: jax.Array, num_maps: int, dtype: jnp.dtype) -> jax.Array:
    """[B, h, w, K] features to [B, h, w, num_maps]; one name in all heads, so that weights fit several of them."""
    return _promote(nn.Dense(num_maps, dtype=dtype, name="modality_maps")(features))


def _promote(values: jax.Array) -> jax.Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
