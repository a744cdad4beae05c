"""What the second stage learns from: images, features and seeds of the frozen first stage, computed once."""

import collections
from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import numpy as np

from minmax_jax.base import progress
from minmax_jax.base.errors import OptionError
from minmax_jax.data import canvases, dataset, padding
from minmax_jax.models import decoder, trunks
from minmax_jax.ops import canvas
from minmax_jax.refinement import seeds
from minmax_jax.refinement.options import RefineOptions

MasksFn = Callable[[canvas.Images], jax.Array]
StagesFn = Callable[[canvas.Images], trunks.Stages]
# As in `seeds.cumulative_foreground` and `seeds.cumulative_background`; docs/second_stage.md compares them with others.
_SEED_POWER, _BACKGROUND_SHARE = 2.0, 0.5


class Group(NamedTuple):
    """Training images of one padded shape or canvas, with all that the frozen first stage says of them.

    Attributes:
        images: [N, H, W, 3] uint8.
        stages: {stride: [N, h, w, K] float16}, those that the decoder reads.
        foreground: [N, (H / 2) (W / 2)] cumulative probabilities of the foreground's seeds.
        background: the same of the background's.
        sizes: [N, 2] int32 of the padded images on their canvases; None: (H, W).
    """

    images: np.ndarray
    stages: dict[int, np.ndarray]
    foreground: np.ndarray
    background: np.ndarray
    sizes: np.ndarray | None = None


def collect(
    masks_fn: MasksFn,
    stages_fn: StagesFn,
    split: dataset.Split,
    *,
    options: RefineOptions,
    batch_size: int,
    seed: int,
    shapes: np.ndarray | None = None,
) -> list[Group]:
    """Runs the first stage once on the training images, as many as fit into `options.cache_gib`.

    Images of classes without a region are left out: they have no seeds of a foreground. So are images of other classes
    for which the first stage names such a class, and whose mask is empty.

    Args:
        masks_fn: [B, H, W, 3] uint8 images to [B, H, W, 1] masks, the source of the seeds.
        stages_fn: the same images to the trunk's features.
        split: the training images.
        options: of the second stage.
        batch_size: images of one shape that are computed together.
        seed: of the choice, where not all images fit.
        shapes: of canvases, as in `image_predictions.predict_split`.

    Raises:
        OptionError: if no image is left.
    """
    from minmax_jax.data import pipeline  # Here, because grain slows down the import of the library.

    skips_empty = bool(split.background_labels)
    split = dataset.subset(split, np.flatnonzero(split.has_region))
    split = dataset.subset(split, _choose(stages_fn, split, options, batch_size, seed, shapes))
    of_images = list(map(tuple, canvases.assign(split.sizes, shapes).tolist()))
    groups: dict[tuple[int, ...], Group] = {}
    filled: collections.Counter[tuple[int, ...]] = collections.Counter()
    with progress.meter("First-stage masks and features", total=len(split), unit="image") as update:
        for batch in pipeline.evaluation_batches(split, batch_size=batch_size, shapes=shapes):
            count = len(batch.indices)
            masks = np.asarray(masks_fn(batch.inputs))[:count]
            stages = decoder.select_stages(stages_fn(batch.inputs))
            half = np.asarray(decoder.halve(masks))[..., 0]
            valid = np.stack([_valid(split.sizes[index], half.shape[1:]) for index in batch.indices])
            part = Group(
                images=batch.images[:count],
                stages={stride: np.asarray(features[:count], np.float16) for stride, features in stages.items()},
                foreground=seeds.cumulative_foreground(half, valid, power=_SEED_POWER),
                background=seeds.cumulative_background(half, valid, share=_BACKGROUND_SHARE),
                sizes=None if batch.sizes is None else batch.sizes[:count],
            )
            if skips_empty:
                part = jax.tree.map(functools.partial(np.compress, masks.any(axis=(1, 2, 3)), axis=0), part)
            shape, num_kept = part.images.shape[1:3], len(part.images)
            if shape not in groups:
                groups[shape] = jax.tree.map(_allocate(of_images.count(shape)), part)
            rows = slice(filled[shape], filled[shape] + num_kept)
            jax.tree.map(functools.partial(_fill, rows), groups[shape], part)
            filled[shape] += num_kept
            update(count)
    if not filled.total():
        raise OptionError("background_classes: the first stage finds a region in no training image. Train it longer.")
    return [jax.tree.map(_first(filled[shape]), group) for shape, group in groups.items() if filled[shape]]


def _allocate(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Room for so many images, filled one batch after another: no second copy is held."""
    return lambda array: np.empty((count, *array.shape[1:]), array.dtype)


def _first(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """The part that was filled."""
    return lambda array: array[:count]


def _fill(rows: slice, whole: np.ndarray, part: np.ndarray) -> None:
    whole[rows] = part


def _choose(
    stages_fn: StagesFn,
    split: dataset.Split,
    options: RefineOptions,
    batch_size: int,
    seed: int,
    shapes: np.ndarray | None,
) -> np.ndarray:
    """Indices of the images that are used, in ascending order."""
    from minmax_jax.data import pipeline  # as in `collect`

    (first,) = pipeline.evaluation_batches(dataset.subset(split, [0]), batch_size=batch_size, shapes=shapes)
    stages = decoder.select_stages(stages_fn(first.inputs))
    numbers = sum(features[0].size for features in stages.values())
    bytes_per_pixel = 3 + 2 * 4 / decoder.STRIDE**2 + 2 * numbers / first.images[0, ..., 0].size
    order = np.random.RandomState(seed).permutation(len(split))
    needed = np.cumsum(np.prod(canvases.assign(split.sizes[order], shapes), axis=1) * bytes_per_pixel)
    return np.sort(order[: max(1, int(np.searchsorted(needed, options.cache_gib * 2**30, side="right")))])


def _valid(size: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    """[h, w] bool: which pixels at half the padded size belong to an image of that size."""
    inside = np.zeros(tuple(decoder.STRIDE * side for side in half), bool)
    padding.crop_back(inside, tuple(size))[:] = True
    return inside[:: decoder.STRIDE, :: decoder.STRIDE]
