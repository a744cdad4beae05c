"""Batch norm as flax has it, and with the running variance that PyTorch keeps."""

import flax.linen as nn
import jax
from jax import lax
import numpy as np


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm`; further attributes:

    Attributes:
        unbiased_variance: the running variance takes in n / (n - 1) times a batch's variance, n the values of a
            channel, as PyTorch's does (published). What normalizes the batch itself is the biased one in any case.
    """

    unbiased_variance: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes [..., K] features."""
        corrects = self.unbiased_variance and not self.use_running_average and not self.is_initializing()
        before = self.get_variable("batch_stats", "var") if corrects else None
        y = super().__call__(x)
        if corrects:
            values = np.prod(x.shape[:-1]) * (lax.axis_size(self.axis_name) if self.axis_name else 1)
            kept = self.momentum * before
            taken = self.get_variable("batch_stats", "var") - kept
            self.put_variable("batch_stats", "var", kept + taken * (values / max(values - 1, 1)))
        return y
