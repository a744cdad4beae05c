"""Array operations; those that are slow or need much memory in XLA's own form have others by platform."""

from minmax_jax.ops.platforms import portable

__all__ = ["portable"]
