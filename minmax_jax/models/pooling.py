"""Poolings: [B, C] logits from [B, h, w, C] class maps. Those of one line are in the heads."""

import math

import jax
import jax.numpy as jnp

from minmax_jax.base.errors import OptionError
from minmax_jax.ops import canvas, free_sizes


def count_locations(k: float, num_locations: int) -> int:
    """Number of locations that k means: a share in (0, 1), rounded half to even, or a count.

    Raises:
        OptionError: if k is negative or not finite, or above 1 and not whole.

    Example:
        >>> from minmax_jax.models import pooling
        >>> pooling.count_locations(0.25, 100), pooling.count_locations(3, 100)
        (25, 3)
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
    sizes: jax.Array | None = None,
) -> jax.Array:
    """WILDCAT (Durand et al., CVPR 2017): mean of the highest values; with the lowest, (that + alpha times theirs) / 2.

    Args:
        class_maps: [B, h, w, C] class maps.
        k_max: how many of the h * w highest values, as in `count_locations`; never fewer than 1.
        k_min: how many of the lowest values; 0 leaves them out, anything else is never fewer than 1.
        alpha: weight of the lowest values; where neither it nor k_min is 0, the sum is halved.
        dropout: probability of dropping each of the sorted values.
        sample_keys: [B] random keys, one per image; without them nothing is dropped.
        sizes: [B, 2] heights and widths of the images in the maps, where they are in the upper left corner; None: the
            maps are those of the images. With sizes nothing is dropped.

    Returns:
        [B, C] logits.

    Example:
        The mean of the two maximum of four values; with the minimum, (3.5 + 0.6 * 1) / 2.

        >>> import jax.numpy as jnp
        >>> from minmax_jax.models import pooling
        >>> class_maps = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
        >>> float(pooling.wildcat_pooling(class_maps, k_max=2)[0, 0])
        3.5
        >>> round(float(pooling.wildcat_pooling(class_maps, k_max=2, k_min=1, alpha=0.6)[0, 0]), 2)
        2.05
    """
    values, num_locations = _flatten(class_maps), class_maps.shape[1] * class_maps.shape[2]
    if sizes is not None or free_sizes.is_free(num_locations):
        return _pool_free(values, k_max, k_min, alpha, _is_valid(class_maps, sizes))
    maximum, _ = jax.lax.top_k(values, max(count_locations(k_max, num_locations), 1))
    logits = jnp.mean(_drop(maximum, dropout, sample_keys, stream=0), axis=-1)
    if alpha != 0 and k_min != 0:
        minimum, _ = jax.lax.top_k(-values, max(count_locations(k_min, num_locations), 1))
        logits = (logits - alpha * jnp.mean(_drop(minimum, dropout, sample_keys, stream=1), axis=-1)) / 2
    return logits


def mean_pooling(
    class_maps: jax.Array,
    *,
    dropout: float = 0.0,
    sample_keys: jax.Array | None = None,
    sizes: jax.Array | None = None,
) -> jax.Array:
    """Mean of each class map.

    Args:
        class_maps: [B, h, w, C] class maps.
        dropout: probability of dropping each value.
        sample_keys: [B] random keys, one per image; without them nothing is dropped.
        sizes: as in `wildcat_pooling`.

    Returns:
        [B, C] logits.
    """
    values = _drop(_flatten(canvas.clear(class_maps, sizes)), dropout, sample_keys, stream=0)
    return jnp.sum(values, axis=-1) / _count(values, sizes)


def log_sum_exp_pooling(class_maps: jax.Array, *, sharpness: float, sizes: jax.Array | None = None) -> jax.Array:
    """(1 / r) log(mean of exp(r x)) of the values x of each class map (Pinheiro and Collobert, CVPR 2015).

    Args:
        class_maps: [B, h, w, C] class maps.
        sharpness: r, above 0: towards 0 the result is the mean, towards infinity the maximum.
        sizes: as in `wildcat_pooling`.

    Returns:
        [B, C] logits.

    Raises:
        OptionError: for a sharpness that is not above 0 and finite.
    """
    if not 0 < sharpness < math.inf:
        raise OptionError(f"sharpness={sharpness} must be above 0 and finite.")
    values = sharpness * _flatten(canvas.fill(class_maps, sizes, -jnp.inf))
    return (jax.nn.logsumexp(values, axis=-1) - jnp.log(_count(values, sizes))) / sharpness


def _flatten(class_maps: jax.Array) -> jax.Array:
    """[B, h, w, C] to [B, C, h * w]."""
    batch, height, width, num_classes = class_maps.shape
    return class_maps.reshape(batch, height * width, num_classes).swapaxes(1, 2)


def _is_valid(class_maps: jax.Array, sizes: jax.Array | None) -> jax.Array | None:
    """[B, 1, h * w] bool, which locations belong to the images; None: all."""
    return None if sizes is None else _flatten(canvas.inside(sizes, class_maps.shape[1:3]))


def _count(values: jax.Array, sizes: jax.Array | None) -> jax.Array:
    """The number of locations of [B, C, h * w] values, which may be free, or of the images in them, in their type."""
    if sizes is not None:
        return jnp.prod(sizes, axis=1, keepdims=True).astype(values.dtype)
    return jnp.asarray(values.shape[-1], jnp.int32).astype(values.dtype)


def _pool_free(values: jax.Array, k_max: float, k_min: float, alpha: float, is_valid: jax.Array | None) -> jax.Array:
    """The logits of [B, C, h * w] values whose number is known when the program runs; nothing is dropped."""
    logits = _mean_of_highest(values, k_max, is_valid)
    if alpha != 0 and k_min != 0:
        logits = (logits - alpha * _mean_of_highest(-values, k_min, is_valid)) / 2
    return logits


def _mean_of_highest(values: jax.Array, k: float, is_valid: jax.Array | None) -> jax.Array:
    """Of all values in order, not by `top_k`: JAX takes minutes to see that a free k is not more than there are."""
    num_locations = values.shape[-1]
    available = jnp.asarray(num_locations, jnp.int32)
    if is_valid is not None:
        values = jnp.where(is_valid, values, -jnp.inf)
        available = jnp.sum(is_valid, axis=-1, dtype=jnp.int32)  # [B, 1]
    count = free_sizes.round_share(available, k) if k < 1 else jnp.minimum(int(k), available)
    count = jnp.maximum(count, 1)
    limit = count if is_valid is None else count[..., None]
    ordered = -jnp.sort(-values, axis=-1)
    counted = jnp.where(jnp.arange(num_locations, dtype=jnp.int32) < limit, ordered, 0.0)
    return jnp.sum(counted, axis=-1) / count


def _drop(values: jax.Array, rate: float, sample_keys: jax.Array | None, *, stream: int) -> jax.Array:
    """Dropout of [B, C, k] values with a key per image, so that it does not depend on the number of devices."""
    if rate == 0 or sample_keys is None:
        return values

    def keep(key):
        return jax.random.bernoulli(jax.random.fold_in(key, stream), 1 - rate, values.shape[1:])

    return jnp.where(jax.vmap(keep)(sample_keys), values / (1 - rate), 0.0)
