"""Gradient accumulation over micro-batches: less memory for more time.

Each forward pass is split, not the whole step. What depends on the whole batch (the range of batch-normalized masks,
the decision to erase again) is therefore unchanged. Only statistics that a network takes of its inputs, such as those
of batch norm, refer to one micro-batch each.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp


def apply_in_parts(
    apply_fn: Callable[..., tuple[Any, Any]], count: int, params: Any, *inputs: jax.Array
) -> tuple[Any, Any]:
    """Applies a function to a batch, one micro-batch after another.

    The backward pass rematerialises each micro-batch and sums the gradients. That costs one more forward pass; memory
    holds the activations of one micro-batch only.

    Args:
        apply_fn: (params, micro-batch of the inputs) -> (results [B / count, ...], statistics).
        count: number of micro-batches, which must divide B.
        params: parameters to differentiate, besides the inputs.
        *inputs: [B, ...] each.

    Returns:
        The results [B, ...], and the mean of the statistics over the micro-batches.
    """
    if count == 1:
        return apply_fn(params, *inputs)
    parts = jax.tree.map(lambda array: array.reshape(count, -1, *array.shape[1:]), inputs)
    # Inside a loop the compiler cannot merge the two computations, so nothing else has to prevent it.
    apply_fn = jax.checkpoint(apply_fn, prevent_cse=False)
    results, statistics = lax.map(lambda part: apply_fn(params, *part), parts)
    results = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), results)
    return results, jax.tree.map(lambda array: jnp.mean(array, axis=0), statistics)
