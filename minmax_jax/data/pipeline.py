"""From a split to batches: endless augmented batches for training, each image once for evaluation."""

from collections.abc import Iterator
import dataclasses
import multiprocessing
import os
import sys
import threading

from absl import flags
import grain
import jax
import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.data import canvases, dataset, padding, transforms
from minmax_jax.ops import canvas

_PREFETCHED_IMAGES = 64


@dataclasses.dataclass(frozen=True)
class _ImagesAndLabels:
    """The part of a split that training reads: no mask passes this type."""

    read_image: object
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"images": self.read_image(index), "labels": self.labels[index]}


@dataclasses.dataclass(frozen=True)
class _Chosen(_ImagesAndLabels):
    """The examples at some indices."""

    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return super().__getitem__(int(self.indices[index]))


class _ShareOfBatches(grain.MapDataset):
    """One of `process_count` parts of every `batch_size` elements; together the processes keep the order."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, process_index: int, process_count: int):
        super().__init__(parent)
        self._batch_size, self._share = batch_size, batch_size // process_count
        self._first = process_index * self._share

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * self._share

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch, place = divmod(index, self._share)
        return self._parent[batch * self._batch_size + self._first + place]


class _ClassByClass(grain.MapDataset):
    """Endless: one example of each class after the other."""

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        number, of_class = divmod(index, len(self.parents))
        return self.parents[of_class][number]


def _in_order(split: dataset.Split, seed: int, *, balanced: bool) -> grain.MapDataset:
    """All images, endless, in the order of the training."""
    images = grain.MapDataset.source(_ImagesAndLabels(split.read_image, split.labels)).seed(seed)
    if not balanced:
        return images.shuffle().repeat()
    classes = [
        grain.MapDataset.source(_Chosen(split.read_image, split.labels, np.flatnonzero(split.labels == label)))
        .seed(seed)
        .shuffle()
        .repeat()
        for label in np.unique(split.labels)
    ]
    # Within as many images as an epoch has, the order of the classes is random.
    return grain.experimental.WindowShuffleMapDataset(_ClassByClass(classes), window_size=len(split), seed=seed)


def train_batches(
    split: dataset.Split,
    *,
    batch_size: int,
    seed: int,
    augmentation: transforms.Augmentation,
    balanced: bool = False,
    first_batch: int = 0,
    num_workers: int = 0,
    num_threads: int = 2,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Endless shuffled, augmented batches, without replacement within an epoch unless they are balanced.

    The batches depend on the seed, not on the number of workers and threads. The shares of the processes, concatenated,
    are the same global batches for any number of processes: the number of batches so far is all that resuming needs.

    Args:
        split: the images.
        batch_size: of the global batch.
        seed: of order and augmentation.
        augmentation: applied to each image.
        balanced: draws all classes that have an image equally often: in any len(split) images from a multiple of that
            on, the numbers of two classes differ by at most 1. The images of each class come in an order that changes
            once all were drawn: those of small classes several times in an epoch, those of large ones not in each.
        first_batch: number of the first, counted from the start of the training.
        num_workers: processes that read images; 0 reads in threads of this one.
        num_threads: threads that read images, in each process.
        process_index: which of the hosts this is.
        process_count: how many hosts share a batch.

    Returns:
        Iterator over {"images": [B, H, W, 3] uint8, "labels": [B] int32}, B this process's share.

    Raises:
        OptionError: if the batch cannot be divided evenly.
    """
    if batch_size % process_count:
        raise OptionError(f"batch_size={batch_size} must be a multiple of the {process_count} processes.")
    images = _in_order(split, seed, balanced=balanced).random_map(augmentation.random_map)
    share = _ShareOfBatches(images, batch_size, process_index, process_count)
    batches = share.batch(batch_size // process_count, drop_remainder=True)[first_batch:]
    buffer_size = max(1, _PREFETCHED_IMAGES * process_count // batch_size)
    batches = batches.to_iter_dataset(grain.ReadOptions(num_threads, prefetch_buffer_size=buffer_size))
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers read an absl flag, also without an absl program.
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers), worker_init_fn=_begin_to_read)
    return iter(batches)


def _begin_to_read(index: int, count: int) -> None:
    """What a reading process does first, before it opens the data."""
    del index, count
    # It computes nothing with JAX, which Grain has imported in it and which would reserve most of an accelerator's
    # memory at the first array.
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")
    _end_with_parent()


def _end_with_parent() -> None:
    """Makes a reading process end when the training does, also where that was killed and could end nothing.

    The last of them also ends the process in which Python counts what they share.
    """
    parent = multiprocessing.parent_process()

    def wait() -> None:
        # Not Linux's signal at the death of the parent: that is sent when the thread ends that started this process.
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


@dataclasses.dataclass(frozen=True)
class EvaluationBatch:
    """Images of one padded shape, or on canvases of one shape.

    Attributes:
        images: [B, H, W, 3] uint8, padded by reflection; rows beyond `indices` are copies that complete the batch.
        indices: of the images in the split, at most B.
        sizes: [B, 2] int32 of the padded images on their canvases; None: the shape of `images`.
    """

    images: np.ndarray
    indices: np.ndarray
    sizes: np.ndarray | None = None

    @property
    def inputs(self) -> canvas.Images:
        """What a method predicts."""
        return canvas.join(self.images, self.sizes)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of each of the B padded images."""
        sizes = [self.images.shape[1:3]] * len(self.images) if self.sizes is None else self.sizes.tolist()
        return list(map(tuple, sizes))


def evaluation_batches(
    split: dataset.Split, *, batch_size: int, shapes: np.ndarray | None = None, num_threads: int = 2
) -> Iterator[EvaluationBatch]:
    """Each image once, at its own resolution, padded to a multiple of 32 and grouped by padded shape or by canvas.

    Args:
        split: the images.
        batch_size: B.
        shapes: of the canvases, as of `canvases.choose`; None: each padded shape by itself.
        num_threads: threads that read ahead, one batch each.
    """
    of_images = canvases.assign(split.sizes, shapes)
    groups = []
    for shape in np.unique(of_images, axis=0):
        members = np.flatnonzero((of_images == shape).all(axis=1))
        groups += [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
    source = _EvaluationBatches(split.read_image, groups, batch_size, None if shapes is None else of_images)
    batches = grain.MapDataset.source(source)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads, prefetch_buffer_size=num_threads)))


@dataclasses.dataclass(frozen=True)
class _EvaluationBatches:
    """Batches by number; `groups` holds the indices of the images of each, which have one shape, that of `shapes`."""

    read_image: object
    groups: list[np.ndarray]
    batch_size: int
    shapes: np.ndarray | None

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> EvaluationBatch:
        indices = self.groups[number]
        images = [padding.pad(self.read_image(int(index))) for index in indices]
        images += images[:1] * (self.batch_size - len(indices))
        if self.shapes is None:
            return EvaluationBatch(images=np.stack(images), indices=indices)
        sizes = np.array([image.shape[:2] for image in images], np.int32)
        placed = [padding.place(image, self.shapes[indices[0]]) for image in images]
        return EvaluationBatch(images=np.stack(placed), indices=indices, sizes=sizes)
