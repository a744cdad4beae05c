"""The pairwise term: a mask may change only where the image does, or the features of the frozen trunk."""

from collections.abc import Iterator, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from minmax_jax.models import trunks
from minmax_jax.ops import resize

# What must change where a mask changes.
SOURCES = ("colors", "features", "either", "both")
_GREATEST_STRIDE = 8  # of features that still say where something changes


class Guide(NamedTuple):
    """Values whose changes allow a mask to change.

    Attributes:
        values: [B, h, w, K].
        bandwidth: squared distance of two values at which a mask may change.
    """

    values: jax.Array
    bandwidth: float


def edge_loss(probabilities: jax.Array, guides: Sequence[Guide], *, reach: int, needs_all: bool = False) -> jax.Array:
    """Mean over pairs of pixels of |p - q| s, s = exp(-|value of p - value of q|^2 / bandwidth) of a guide.

    The eight neighbours of each pixel at the distance `reach` along rows, columns and diagonals; every pair once.

    Args:
        probabilities: [B, h, w] of the foreground.
        guides: at least one. Of several, s is the product: a mask may change where any guide does.
        reach: in pixels, at least 1.
        needs_all: whether s is the greatest instead: a mask may change only where all guides do.

    Returns:
        [B] losses.
    """
    total, count = 0.0, 0
    for here, there in _pairs(probabilities.shape[1:], reach):
        similarities = [
            jnp.exp(-jnp.sum((values[here] - values[there]) ** 2, axis=-1) / bandwidth) for values, bandwidth in guides
        ]
        similarity = functools.reduce(jnp.maximum if needs_all else jnp.multiply, similarities)
        differences = jnp.abs(probabilities[here] - probabilities[there]) * similarity
        total += jnp.sum(differences, axis=(1, 2))
        count += differences[0].size
    return total / max(count, 1)


def unit_features(stages: trunks.Stages, size: tuple[int, int], *, alignment: str) -> jax.Array:
    """[B, h, w, K] features of length 1, so that squared distances are from 0 to 4.

    Args:
        stages: {output stride: [B, h', w', K]}; the coarsest of at most stride 8 counts, or else the finest.
        size: (h, w).
        alignment: where the features lie, as in `masks.foreground_masks`.
    """
    stride = max((stride for stride in stages if stride <= _GREATEST_STRIDE), default=min(stages))
    features = stages[stride].astype(jnp.float32)
    features = features - jnp.mean(features, axis=(1, 2), keepdims=True)  # what all places share distinguishes none
    features = features * jax.lax.rsqrt(jnp.sum(features**2, axis=-1, keepdims=True) + 1e-6)
    return resize.resize_bilinear(features, size, alignment=alignment)


def _pairs(size: tuple[int, int], reach: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Slices of [B, h, w, ...] arrays: all pixels with a neighbour in one of four directions, and that neighbour."""
    height, width = size
    for down, right in ((0, reach), (reach, 0), (reach, reach), (reach, -reach)):
        # An image smaller than the reach has no pairs; a negative end would count from the other side.
        rows = slice(0, max(0, height - down)), slice(down, height)
        columns = slice(0, max(0, width - abs(right))), slice(abs(right), width)
        here, there = columns if right >= 0 else columns[::-1]
        yield (slice(None), rows[0], here), (slice(None), rows[1], there)
