"""Gradient accumulation: networks run on parts of a batch, one part after another, to save memory.

The cut is made around each pass of a network, not around the whole step. So what depends on the whole batch (the
range of batch-normalised masks, whether another erasure follows) is as without the cut; only statistics that a
network takes of its inputs, as batch norm does, are of one part each.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp


def apply_in_parts(
    apply_fn: Callable[..., tuple[Any, Any]], count: int, params: Any, *inputs: jax.Array
) -> tuple[Any, Any]:
    """What `apply_fn` makes of the whole batch, computed part by part.

    On the way back each part is computed again and its gradient added to those before. That costs one more forward
    pass, and memory holds the activations of one part only.

    Args:
        apply_fn: (params, parts of the inputs) -> (results [B / count, ...], statistics).
        count: number of parts, which must divide B.
        params: what the gradient is taken to, besides the inputs.
        *inputs: [B, ...] each.

    Returns:
        The results [B, ...], and the mean of the parts' statistics.
    """
    if count == 1:
        return apply_fn(params, *inputs)
    parts = jax.tree.map(lambda array: array.reshape(count, -1, *array.shape[1:]), inputs)
    # A loop keeps the compiler from merging the two computations: nothing else has to.
    apply_fn = jax.checkpoint(apply_fn, prevent_cse=False)
    results, statistics = lax.map(lambda part: apply_fn(params, *part), parts)
    results = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), results)
    return results, jax.tree.map(lambda array: jnp.mean(array, axis=0), statistics)
