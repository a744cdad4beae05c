"""What a trunk is: a module from images to the features of its stages."""

from collections.abc import Mapping

import jax

# {output stride: [B, h, w, K] features}; of several stages with one stride, the last.
Stages = Mapping[int, jax.Array]
# Name of a module in a trunk whose parameters never change: it stops their gradients, and optimizers do not decay them.
FROZEN = "frozen"


def last_features(stages: Stages | jax.Array) -> jax.Array:
    """The [B, h, w, K] features of the deepest stage.

    Args:
        stages: what a trunk returned; an array alone is taken as its only stage.
    """
    return stages[max(stages)] if isinstance(stages, Mapping) else stages
