"""Batch norm, also with the running variance that PyTorch keeps."""

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np


class BatchNorm(nn.Module):
    """Normalizes each channel by its mean and variance over the batch, or by their running averages.

    Attributes:
        channels: K.
        use_running_average: whether by the running averages, as at inference.
        momentum: share of the running averages that a batch leaves as it was.
        epsilon: added to the variance.
        unbiased_variance: the running variance takes in n / (n - 1) times a batch's variance, n the values of a
            channel, as PyTorch's does (published). What normalizes the batch itself is the biased one in any case.
        axis_name: mapped axis over which statistics are taken together, or None.
        dtype: of the result; statistics and parameters are float32, or float64 with inputs of that kind.
    """

    channels: int
    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    unbiased_variance: bool = False
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        shape = (self.channels,)
        self.running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.running_variance = self.variable("batch_stats", "var", jnp.ones, shape)
        self.scale = self.param("scale", nn.initializers.ones, shape)
        self.bias = self.param("bias", nn.initializers.zeros, shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes [..., K] features."""
        if self.use_running_average:
            factor, shift = self.running_affine()
        else:
            mean, variance = self._statistics(x)
            if not self.is_initializing():
                values = np.prod(x.shape[:-1]) * (lax.axis_size(self.axis_name) if self.axis_name else 1)
                correction = values / max(values - 1, 1) if self.unbiased_variance else 1
                pairs = (self.running_mean, mean), (self.running_variance, variance * correction)
                for running, taken in pairs:
                    running.value = self.momentum * running.value + (1 - self.momentum) * taken
            factor, shift = self._affine(mean, variance)
        # One product and one sum: what a step keeps for its gradients is x alone.
        return (x * factor + shift).astype(self.dtype)

    def running_affine(self) -> tuple[jax.Array, jax.Array]:
        """The factor and the shift, [K] each, that normalization by the running averages is."""
        return self._affine(self.running_mean.value, self.running_variance.value)

    def _affine(self, mean: jax.Array, variance: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = self.scale * lax.rsqrt(variance + self.epsilon)
        return factor, self.bias - mean * factor

    def _statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and biased variance of each channel."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1))
        moments = jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
        if self.axis_name is not None and not self.is_initializing():
            moments = lax.pmean(jnp.stack(moments), self.axis_name)
        mean, mean_of_squares = moments
        return mean, jnp.maximum(mean_of_squares - jnp.square(mean), 0)
