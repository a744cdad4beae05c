"""Running batch-norm statistics, one set per stream of inputs: whole images, foregrounds, backgrounds.

The three differ so much that one set of running statistics fits none of them: a classifier evaluated with a shared set
stays far below its training accuracy. Training normalizes by the statistics of its batch, so running statistics matter
at inference only, and are plain values outside the modules.

Erased images have no stream: inference never sees them, and they would distort the statistics of whole images. With a
shared set (the published choice) every pass updates it.
"""

from typing import Any

import jax
import jax.numpy as jnp

WHOLE = "whole"
FOREGROUND = "foreground"
BACKGROUND = "background"
_SHARED = "shared"

BatchStats = dict[str, Any]


def create(batch_stats: Any, *, shared: bool = False) -> BatchStats:
    """Freshly initialised statistics for each stream, or one set for all."""
    names = (_SHARED,) if shared else (WHOLE, FOREGROUND, BACKGROUND)
    return {name: jax.tree.map(jnp.copy, batch_stats) for name in names}


def is_shared(batch_stats: BatchStats) -> bool:
    """Whether all streams share one set."""
    return _SHARED in batch_stats


def read(batch_stats: BatchStats, stream: str) -> Any:
    """The statistics of a stream."""
    return batch_stats[_SHARED if is_shared(batch_stats) else stream]


def collections(variables: dict[str, Any], stream: str) -> dict[str, Any]:
    """What `apply` of a Flax module takes: the parameters, and the statistics of a stream.

    Args:
        variables: "params" and "batch_stats", as in `TrainState`; further entries are left out.
        stream: whose statistics.
    """
    return {"params": variables["params"], "batch_stats": read(variables["batch_stats"], stream)}


def write(batch_stats: BatchStats, stream: str, updated: Any) -> BatchStats:
    """All statistics, with those of `stream` replaced.

    Args:
        batch_stats: of all streams, or the shared set.
        stream: whose statistics are replaced; all share them in a shared set.
        updated: the stream's new statistics.
    """
    return batch_stats | {_SHARED if is_shared(batch_stats) else stream: updated}
