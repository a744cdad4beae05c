"""Datasets as the rest of the library sees them: names, labels, and functions that read one image or mask."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import logging
import math

import numpy as np

from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.data import readings
from minmax_jax.data.preprocessing import MIN_SIDE, Preprocessing

logger = logging.getLogger(__name__)
# Value of the pixels of a stored mask that are neither foreground (1) nor background (0).
IGNORED = 2


class DataError(UserError, ValueError):
    """A file of a dataset that cannot be used; the message names it and what to do."""


def _none(index: int) -> None:
    del index


def _no_boxes(index: int) -> np.ndarray:
    del index
    return np.zeros((0, 4), np.float32)


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a dataset. Training reads images and labels; only evaluation reads masks, boxes and instances.

    Attributes:
        names: of the N examples.
        labels: [N] int32 classes.
        class_names: of the C classes.
        sizes: [N, 2] height and width of the images that `read_image` returns.
        read_image: index -> [H, W, 3] uint8; picklable, for worker processes.
        read_mask: index -> [H, W] bool, at its own resolution, or None where an image has no mask; picklable.
        read_boxes: index -> [K, 4] float32 bounding boxes of its K objects, (top, left, bottom, right) as shares of
            height and width, or none, K = 0, where they are not known; picklable.
        read_ignored: index -> [H, W] bool, the pixels of the mask that are neither foreground nor background, or None
            where each is one of them; picklable.
        read_instances: index -> [H, W] int32, for each pixel of the mask the number of its object, from 1, and 0 where
            it is of none, or None without instance annotations; picklable.
        patients: whom each of the N examples is of; "" where that is not known, () where it is known of none.
        reading: how the image files were read when the dataset was prepared.
        microns_per_pixel: of the images as they were prepared; 0 where it is unknown.
        background_classes: names of the classes without a region, such as normal tissue or an empty field.

    Example:
        Two images in memory, of which one has a mask:

        >>> import numpy as np
        >>> from minmax_jax.data import dataset
        >>> images, masks = np.zeros((2, 64, 64, 3), np.uint8), [np.eye(64, dtype=bool), None]
        >>> split = dataset.Split(
        ...     names=("cat1", "dog1"),
        ...     labels=np.int32([0, 1]),
        ...     class_names=("cat", "dog"),
        ...     sizes=np.full((2, 2), 64),
        ...     read_image=images.__getitem__,
        ...     read_mask=masks.__getitem__,
        ... )
        >>> len(split), split.read_mask(0).shape, split.read_mask(1)
        (2, (64, 64), None)
    """

    names: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    sizes: np.ndarray
    read_image: Callable[[int], np.ndarray]
    read_mask: Callable[[int], np.ndarray | None]
    read_boxes: Callable[[int], np.ndarray] = _no_boxes
    read_ignored: Callable[[int], np.ndarray | None] = _none
    read_instances: Callable[[int], np.ndarray | None] = _none
    patients: tuple[str, ...] = ()
    reading: readings.Reading = readings.AS_STORED
    microns_per_pixel: float = 0.0
    background_classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def background_labels(self) -> tuple[int, ...]:
        """The numbers of the classes without a region, in ascending order."""
        return tuple(label for label, name in enumerate(self.class_names) if name in self.background_classes)

    @property
    def has_region(self) -> np.ndarray:
        """[N] bool, whether the class of each example has a region."""
        return ~np.isin(self.labels, self.background_labels)


def check_background(names: Sequence[str], class_names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes without a region, in the order of their labels.

    Raises:
        OptionError: for names of no class, or where no class with a region is left.
    """
    given = f"background_classes={','.join(map(str, names))}"
    if unknown := [name for name in names if name not in class_names]:
        raise OptionError(f"{given}: {unknown[0]!r} is no class. The classes are {', '.join(class_names)}.")
    if set(names) == set(class_names):
        raise OptionError(f"{given} are all classes: at least one must have a region. Leave that one out.")
    return tuple(name for name in class_names if name in names)


def any_mask(split: Split) -> bool:
    """Whether an image of a class with a region has a mask, so that masks can be compared."""
    return any(split.read_mask(int(index)) is not None for index in np.flatnonzero(split.has_region))


def subset(split: Split, indices: Sequence[int]) -> Split:
    """The examples at `indices`, in that order.

    Example:
        >>> from minmax_jax.data import dataset, synthetic
        >>> split = synthetic.load("test", 8, config=synthetic.SyntheticConfig())
        >>> dataset.subset(split, [5, 2]).names
        ('test_000005', 'test_000002')
    """
    indices = np.asarray(indices, int)
    return dataclasses.replace(
        split,
        names=tuple(split.names[i] for i in indices),
        labels=split.labels[indices],
        sizes=split.sizes[indices],
        read_image=functools.partial(_read_at, split.read_image, indices),
        read_mask=functools.partial(_read_at, split.read_mask, indices),
        read_boxes=functools.partial(_read_at, split.read_boxes, indices),
        read_ignored=functools.partial(_read_at, split.read_ignored, indices),
        read_instances=functools.partial(_read_at, split.read_instances, indices),
        patients=tuple(split.patients[i] for i in indices) if split.patients else (),
    )


def _read_at(read, indices, index):
    return read(int(indices[index]))


def only_classes(split: Split, class_names: Sequence[str]) -> Split:
    """The examples of some classes; the labels count these from 0, in the order given.

    Raises:
        DataError: for a class that the split does not have.
    """
    unknown = [name for name in class_names if name not in split.class_names]
    if unknown:
        raise DataError(f"The dataset has no class {unknown[0]!r}.")
    new_labels = np.full(len(split.class_names), -1, np.int32)
    for label, name in enumerate(class_names):
        new_labels[split.class_names.index(name)] = label
    kept = subset(split, np.flatnonzero(new_labels[split.labels] >= 0))
    return dataclasses.replace(
        kept,
        labels=new_labels[kept.labels],
        class_names=tuple(class_names),
        background_classes=tuple(name for name in split.background_classes if name in class_names),
    )


def concatenate(first: Split, second: Split) -> Split:
    """All examples of two splits of one dataset."""
    return dataclasses.replace(
        first,
        names=first.names + second.names,
        labels=np.concatenate([first.labels, second.labels]),
        sizes=np.concatenate([first.sizes, second.sizes]),
        read_image=functools.partial(_read_either, first.read_image, second.read_image, len(first)),
        read_mask=functools.partial(_read_either, first.read_mask, second.read_mask, len(first)),
        read_boxes=functools.partial(_read_either, first.read_boxes, second.read_boxes, len(first)),
        read_ignored=functools.partial(_read_either, first.read_ignored, second.read_ignored, len(first)),
        read_instances=functools.partial(_read_either, first.read_instances, second.read_instances, len(first)),
        patients=first.patients + second.patients if first.patients and second.patients else (),
    )


def _read_either(read_first, read_second, num_first, index):
    return read_first(index) if index < num_first else read_second(index - num_first)


def stratified(labels: np.ndarray, num_examples: int, *, seed: int) -> np.ndarray:
    """Indices of `num_examples` examples with the class frequencies of all.

    With one seed, a smaller set is contained in a larger one.

    Args:
        labels: [N] classes.
        num_examples: how many are chosen, at most N.
        seed: of the choice.

    Returns:
        [num_examples] indices.
    """
    shuffled, place = _shuffle(labels, seed)
    share = (place + 0.5) / np.bincount(labels)[labels]
    return shuffled[np.argsort(share[shuffled], kind="stable")][:num_examples]


def few_per_class(labels: np.ndarray, *, fraction: float = 1.0, count: int = 0, seed: int) -> np.ndarray:
    """Indices of a share or a number of the examples of each class, in ascending order.

    With one seed, a smaller set is contained in a larger one, whether given by share or by number.

    Args:
        labels: [N] classes.
        fraction: share of each class, rounded, at least one example.
        count: number of each class; 0 means all.
        seed: of the choice.

    Raises:
        OptionError: if a class has fewer than `count` examples.
    """
    of_class = np.bincount(labels)[labels]
    if len(labels) and count > of_class.min():
        raise OptionError(f"train_per_class={count} must be at most {of_class.min()}, the size of the smallest class.")
    _, place = _shuffle(labels, seed)
    return np.flatnonzero(place < (count or np.maximum(1, np.round(fraction * of_class))))


def _shuffle(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random order [N] of all examples, and the rank [N] of each among those of its class."""
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    place = np.zeros(len(labels), int)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = np.arange(len(members))
    return shuffled, place


def preprocess(split: Split, preprocessing: Preprocessing) -> Split:
    """The same examples with preprocessed images; masks do not change.

    Raises:
        DataError: if an image becomes smaller than 32 pixels.
    """
    sizes = preprocessing.sizes(split.sizes)
    too_small = np.flatnonzero(sizes.min(axis=1) < MIN_SIDE)
    if len(too_small):
        first = too_small[0]
        raise DataError(
            f"Image {split.names[first]!r} has {tuple(map(int, sizes[first]))} pixels at scale={preprocessing.scale};"
            f" each side needs at least {MIN_SIDE}. Raise scale or min_side, or leave out the image"
            f" ({len(too_small)} such)."
        )
    read_image = functools.partial(_read_preprocessed, split.read_image, preprocessing)
    return dataclasses.replace(split, sizes=sizes, read_image=read_image)


def _read_preprocessed(read_image, preprocessing, index):
    return preprocessing(read_image(index))


def typical_side(split: Split, *, max_side: int) -> int:
    """The largest multiple of 32 pixels that fits into the smaller side of half of the images."""
    return min(max_side, int(np.median(split.sizes.min(axis=1))) // MIN_SIDE * MIN_SIDE)


def cache_images(split: Split, *, max_gib: float = math.inf) -> Split:
    """Caches images once they were read, at 3 bytes per pixel: in each process that reads, the first that fit."""
    ends = np.cumsum(3 * split.sizes.astype(np.int64).prod(axis=1))
    num_kept = int(np.searchsorted(ends, max_gib * 2**30, side="right"))
    total, kept = ends[-1] / 2**20, (ends[num_kept - 1] if num_kept else 0) / 2**20
    if num_kept == len(split):
        logger.info("Caching all %d images in memory (%.1f MiB).", len(split), total)
    else:
        logger.info("Caching %d of %d images in memory (%.1f of %.1f MiB).", num_kept, len(split), kept, total)
    return dataclasses.replace(split, read_image=_Cache(split.read_image, num_kept))


class _Cache:
    """A picklable cache of the first `num_kept` images."""

    def __init__(self, read, num_kept):
        self._read, self._num_kept, self._images = read, num_kept, {}

    def __call__(self, index):
        if index >= self._num_kept:
            return self._read(index)
        if index not in self._images:
            self._images[index] = self._read(index)
        return self._images[index]
