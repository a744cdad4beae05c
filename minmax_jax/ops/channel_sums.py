"""The two sums over a batch that batch norm needs, forward and backward, in one pass over the data."""

import jax
import jax.numpy as jnp

from minmax_jax.ops import platforms
from minmax_jax.ops.cpu import native


def channel_sums(values: jax.Array, partners: jax.Array, centres: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each channel, [K], the sum of the values, and that of values * (partners - centres).

    Args:
        values: [..., K].
        partners: [..., K], of the same type.
        centres: [K], approximate means of the partners; the closer, the smaller the rounding errors.
    """

    def plain(values, partners, centres):
        axes = tuple(range(values.ndim - 1))
        return jnp.sum(values, axes), jnp.sum(values * (partners - centres), axes)

    def on_cpu(*arrays):
        is_float32 = all(array.dtype == jnp.float32 for array in arrays)
        fits = is_float32 and partners.shape == values.shape and centres.shape == values.shape[-1:]
        fits = fits and native.is_available()
        return (native.channel_sums if fits else plain)(*arrays)

    return platforms.choose(values, partners, centres, cpu=on_cpu, default=plain)
