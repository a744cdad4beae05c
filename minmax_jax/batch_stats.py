"""Running batch-norm statistics, kept apart by what the trunk looks at.

Whole images, foregrounds and backgrounds differ so much that one set of running statistics fits none of them: a
classifier evaluated with a shared set falls far behind its training accuracy. Training always normalizes by
the batch at hand, so the running statistics only matter at inference, and are plain values outside the modules.

Erased images have no stream: inference never sees one, and they would spoil the whole images'. Under a shared
set (the published choice) every pass counts.
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
    """A copy of freshly initialised statistics for each stream, or one for all."""
    names = (_SHARED,) if shared else (WHOLE, FOREGROUND, BACKGROUND)
    return {name: jax.tree.map(jnp.copy, batch_stats) for name in names}


def is_shared(batch_stats: BatchStats) -> bool:
    """Whether all streams read and write one set."""
    return _SHARED in batch_stats


def read(batch_stats: BatchStats, stream: str) -> Any:
    """The statistics that a pass over `stream` reads."""
    return batch_stats[_SHARED if is_shared(batch_stats) else stream]


def write(batch_stats: BatchStats, stream: str, updated: Any) -> BatchStats:
    """All statistics, those of `stream` replaced by what a pass over it returned."""
    return batch_stats | {_SHARED if is_shared(batch_stats) else stream: updated}
