"""Batch norm, also with the running variance that PyTorch keeps."""

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np


class BatchNorm(nn.Module):
    """Normalizes each channel by its mean and variance over the batch, or by their running averages.

    Attributes:
        use_running_average: whether by the running averages, as at inference.
        momentum: share of the running averages that a batch leaves as it was.
        epsilon: added to the variance.
        unbiased_variance: the running variance takes in n / (n - 1) times a batch's variance, n the values of a
            channel, as PyTorch's does (published). What normalizes the batch itself is the biased one in any case.
        axis_name: mapped axis over which statistics are taken together, or None.
        dtype: of the result; statistics and parameters are float32, or float64 with inputs of that kind.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    unbiased_variance: bool = False
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes [..., K] features."""
        channels = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        if self.use_running_average:
            mean, variance = running_mean.value, running_variance.value
        else:
            mean, variance = self._statistics(x)
            if not self.is_initializing():
                values = np.prod(x.shape[:-1]) * (lax.axis_size(self.axis_name) if self.axis_name else 1)
                correction = values / max(values - 1, 1) if self.unbiased_variance else 1
                for running, taken in ((running_mean, mean), (running_variance, variance * correction)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * taken
        # One product and one sum: what a step keeps for its gradients is x alone.
        factor = scale * lax.rsqrt(variance + self.epsilon)
        return (x * factor + (bias - mean * factor)).astype(self.dtype)

    def _statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and biased variance of each channel."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1))
        moments = jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
        if self.axis_name is not None and not self.is_initializing():
            moments = lax.pmean(jnp.stack(moments), self.axis_name)
        mean, mean_of_squares = moments
        return mean, jnp.maximum(mean_of_squares - jnp.square(mean), 0)
