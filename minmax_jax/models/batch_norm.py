"""Batch norm, with the running variance of Flax or of PyTorch."""

import functools

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from minmax_jax.ops import device_means


class BatchNorm(nn.Module):
    """Normalizes each channel by its mean and variance over the batch, or by their running averages.

    Attributes:
        channels: K.
        use_running_average: normalizes by the running averages, as at inference.
        momentum: decay of the running averages.
        epsilon: added to the variance.
        unbiased_variance: the running variance averages n / (n - 1) times a batch's variance, n the number of values
            per channel, as PyTorch does (published). The batch itself is always normalized by the biased variance.
        axis_name: mapped axis over which statistics are taken (cross-replica batch norm), or None.
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
            return (x * factor + shift).astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        y, mean, variance = _normalize(x, self.scale, self.bias, self.epsilon, axis_name)
        if not self.is_initializing():
            values = np.prod(x.shape[:-1]) * (lax.axis_size(axis_name) if axis_name else 1)
            correction = values / max(values - 1, 1) if self.unbiased_variance else 1
            for running, taken in (self.running_mean, mean), (self.running_variance, variance * correction):
                running.value = self.momentum * running.value + (1 - self.momentum) * taken
        return y.astype(self.dtype)

    def running_affine(self) -> tuple[jax.Array, jax.Array]:
        """Normalization by the running averages as a factor and a shift, [K] each."""
        factor = self.scale * lax.rsqrt(self.running_variance.value + self.epsilon)
        return factor, self.bias - self.running_mean.value * factor


# Differentiated by hand: two sums over the batch in the backward pass where automatic differentiation takes six, and
# half as many operations to trace in a training step. Only x is saved for the backward pass.


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize(x, scale, bias, epsilon, axis_name):
    """(x normalized by its mean and biased variance, mean, variance); no gradient passes through the latter two."""
    return _forward(x, scale, bias, epsilon, axis_name)[0]


@functools.partial(jax.jit, static_argnums=(3, 4))
def _forward(x, scale, bias, epsilon, axis_name):
    values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    sums = _sums(values, values, 0)
    mean, mean_of_squares = _means(sums, x, axis_name)
    variance = jnp.maximum(mean_of_squares - jnp.square(mean), 0)
    inverse = lax.rsqrt(variance + epsilon)
    factor = scale * inverse
    return (values * factor + (bias - mean * factor), mean, variance), (x, scale, mean, inverse)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(epsilon, axis_name, kept, cotangents):
    del epsilon
    x, scale, mean, inverse = kept
    to_y, *_ = cotangents
    values = x.astype(to_y.dtype)
    to_bias, to_factor = sums = _sums(to_y, values, mean)
    constant, slope = _means(sums, x, axis_name)
    # Not in terms of a normalized x, which XLA would compute early and keep in memory.
    slope = slope * jnp.square(inverse)
    to_x = scale * inverse * (to_y - values * slope - (constant - mean * slope))
    return to_x.astype(x.dtype), (to_factor * inverse).astype(scale.dtype), to_bias.astype(scale.dtype)


def _sums(values, partners, centres):
    """For each channel, [K], the sum of the values, and that of values * (partners - centres)."""
    axes = tuple(range(values.ndim - 1))
    return jnp.sum(values, axes), jnp.sum(values * (partners - centres), axes)


def _means(sums, x, axis_name):
    """Means over the batch and over the devices."""
    means = [total * (x.shape[-1] / x.size) for total in sums]
    return means if axis_name is None else device_means.device_means(means, axis_name)


_normalize.defvjp(_forward, _backward)
