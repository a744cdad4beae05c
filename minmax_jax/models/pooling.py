"""WILDCAT pooling (Durand et al. 2017): class logits from the strongest locations of class maps."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from minmax_jax.base.errors import OptionError
from minmax_jax.ops import free_sizes


def count_locations(k: float, num_locations: int) -> int:
    """Number of locations that k means: a share in (0, 1), rounded half to even, or a count.

    Raises:
        OptionError: if k is negative or not finite, or above 1 and not whole.
    """
    if not 0 <= k < math.inf or (k >= 1 and k != int(k)):
        raise OptionError(f"k={k} must be 0, a share of the locations in (0, 1), or a whole number of them.")
    return min(round(k * num_locations) if k < 1 else int(k), num_locations)


def wildcat_pooling(
    class_maps: jax.Array,
    *,
    k_max: float,
    k_min: float = 0.0,
    alpha: float = 0.0,
    dropout: float = 0.0,
    sample_keys: jax.Array | None = None,
) -> jax.Array:
    """Mean of the greatest values of each class map; with least values, (that + alpha times their mean) / 2.

    Args:
        class_maps: [B, h, w, C] class maps.
        k_max: how many of the h * w greatest values, as in `count_locations`; never fewer than 1.
        k_min: how many of the least values; 0 leaves them out, anything else is never fewer than 1.
        alpha: weight of the least values; where neither it nor k_min is 0, the sum is halved.
        dropout: probability of dropping each of the sorted values.
        sample_keys: [B] random keys, one per image; without them nothing is dropped.

    Returns:
        [B, C] logits.
    """
    batch, height, width, num_classes = class_maps.shape
    values = class_maps.reshape(batch, height * width, num_classes).swapaxes(1, 2)
    if free_sizes.is_free(height * width):
        return _pool_free(values, k_max, k_min, alpha)
    greatest, _ = jax.lax.top_k(values, max(count_locations(k_max, height * width), 1))
    scores = jnp.mean(_drop(greatest, dropout, sample_keys, stream=0), axis=-1)
    if alpha != 0 and k_min != 0:
        least, _ = jax.lax.top_k(-values, max(count_locations(k_min, height * width), 1))
        scores = (scores - alpha * jnp.mean(_drop(least, dropout, sample_keys, stream=1), axis=-1)) / 2
    return scores


def _pool_free(values: jax.Array, k_max: float, k_min: float, alpha: float) -> jax.Array:
    """The logits of [B, C, h * w] values where h and w are free; nothing is dropped."""
    scores = _mean_of_greatest(values, k_max)
    if alpha != 0 and k_min != 0:
        scores = (scores - alpha * _mean_of_greatest(-values, k_min)) / 2
    return scores


def _mean_of_greatest(values: jax.Array, k: float) -> jax.Array:
    """Of all values in order, not by `top_k`: JAX takes minutes to see that a free k is not more than there are."""
    num_locations = values.shape[-1]
    available = jnp.asarray(num_locations, jnp.int32)
    count = free_sizes.round_share(available, k) if k < 1 else jnp.minimum(int(k), available)
    count = jnp.maximum(count, 1)
    ordered = -jnp.sort(-values, axis=-1)
    counted = jnp.where(jnp.arange(num_locations, dtype=jnp.int32) < count, ordered, 0.0)
    return jnp.sum(counted, axis=-1) / count


def _drop(values: jax.Array, rate: float, sample_keys: jax.Array | None, *, stream: int) -> jax.Array:
    """Dropout of [B, C, k] values with a key per image, so that it does not depend on the number of devices."""
    if rate == 0 or sample_keys is None:
        return values

    def keep(key):
        return jax.random.bernoulli(jax.random.fold_in(key, stream), 1 - rate, values.shape[1:])

    return jnp.where(jax.vmap(keep)(sample_keys), values / (1 - rate), 0.0)


class WildcatHead(nn.Module):
    """Class maps from features, and class logits from the maps. Defaults are published values.

    Attributes:
        num_classes: C.
        modalities: M, maps per class; their mean is the class map.
        k_max: as in `wildcat_pooling`.
        k_min: as in `wildcat_pooling`.
        alpha: as in `wildcat_pooling`.
        dropout: as in `wildcat_pooling`.
        dtype: of the convolution; maps and logits are at least float32.
    """

    num_classes: int
    modalities: int = 5
    k_max: float = 0.09
    k_min: float = 0.09
    alpha: float = 0.0
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, sample_keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, K] features to ([B, C] logits, [B, h, w, C] class maps)."""
        maps = nn.Dense(self.num_classes * self.modalities, dtype=self.dtype, name="modality_maps")(features)
        maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
        class_maps = jnp.mean(maps.reshape(*maps.shape[:-1], self.num_classes, self.modalities), axis=-1)
        logits = wildcat_pooling(
            class_maps,
            k_max=self.k_max,
            k_min=self.k_min,
            alpha=self.alpha,
            dropout=self.dropout,
            sample_keys=sample_keys,
        )
        return logits, class_maps
