"""From a split to batches: endless augmented ones for training, each image once for evaluation."""

from collections.abc import Iterator
import dataclasses

from absl import flags
import grain
import numpy as np

from minmax_jax.data import dataset, transforms

_MULTIPLE = 32
_PREFETCHED_IMAGES = 64


@dataclasses.dataclass(frozen=True)
class _ImagesAndLabels:
    """What training may see of a split: no mask gets past here."""

    read_image: object
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"images": self.read_image(index), "labels": self.labels[index]}


class _ShareOfBatches(grain.MapDataset):
    """Of every `batch_size` elements one of `process_count` parts: together the processes keep their order."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, process_index: int, process_count: int):
        super().__init__(parent)
        self._batch_size, self._share = batch_size, batch_size // process_count
        self._first = process_index * self._share

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * self._share

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch, place = divmod(index, self._share)
        return self._parent[batch * self._batch_size + self._first + place]


def train_batches(
    split: dataset.Split,
    *,
    batch_size: int,
    seed: int,
    augmentation: transforms.Augmentation,
    num_workers: int = 0,
    num_threads: int = 2,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Shuffled, augmented batches without end, each image once before any comes again.

    The same seed gives the same batches whatever the number of workers and threads, and the processes' shares, one
    after another, are the same global batches whatever their number. The iterator's state, the same in all processes,
    can be saved and set.

    Args:
        split: the images.
        batch_size: of the global batch.
        seed: of order and augmentation.
        augmentation: applied to each image.
        num_workers: processes that read images; 0 reads in threads of this one.
        num_threads: threads that read images, in each process.
        process_index: which of the hosts this is.
        process_count: how many hosts share a batch.

    Returns:
        Iterator over {"images": [B, H, W, 3] uint8, "labels": [B] int32}, B this process's share.

    Raises:
        ValueError: if the batch cannot be shared evenly.
    """
    if batch_size % process_count:
        raise ValueError(f"batch_size={batch_size} must be a multiple of the {process_count} processes.")
    images = (
        grain.MapDataset.source(_ImagesAndLabels(split.read_image, split.labels))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(augmentation)
    )
    share = _ShareOfBatches(images, batch_size, process_index, process_count)
    batches = share.batch(batch_size // process_count, drop_remainder=True)
    buffer_size = max(1, _PREFETCHED_IMAGES * process_count // batch_size)
    batches = batches.to_iter_dataset(grain.ReadOptions(num_threads, prefetch_buffer_size=buffer_size))
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers read a flag, also where no absl program runs.
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers))
    return iter(batches)


@dataclasses.dataclass(frozen=True)
class EvaluationBatch:
    """Images of one padded shape.

    Attributes:
        images: [B, H, W, 3] uint8, padded by reflection; rows beyond `indices` are copies that fill the batch.
        indices: places of the images in the split, at most B.
    """

    images: np.ndarray
    indices: np.ndarray


def evaluation_batches(split: dataset.Split, *, batch_size: int, num_threads: int = 2) -> Iterator[EvaluationBatch]:
    """Each image once, at its own resolution, padded to a multiple of 32 and grouped by padded shape.

    Args:
        split: the images.
        batch_size: B.
        num_threads: threads that read ahead, a batch each.
    """
    padded_sizes = -(-split.sizes // _MULTIPLE) * _MULTIPLE
    groups = []
    for shape in np.unique(padded_sizes, axis=0):
        members = np.flatnonzero((padded_sizes == shape).all(axis=1))
        groups += [(shape, members[start : start + batch_size]) for start in range(0, len(members), batch_size)]
    batches = grain.MapDataset.source(_EvaluationBatches(split.read_image, groups, batch_size))
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads, prefetch_buffer_size=num_threads)))


@dataclasses.dataclass(frozen=True)
class _EvaluationBatches:
    """Batches by number; `groups` holds the padded shape of each, and where in the split its images are."""

    read_image: object
    groups: list[tuple[np.ndarray, np.ndarray]]
    batch_size: int

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> EvaluationBatch:
        shape, indices = self.groups[number]
        images = [_pad(self.read_image(int(index)), shape) for index in indices]
        images += images[:1] * (self.batch_size - len(indices))
        return EvaluationBatch(images=np.stack(images), indices=indices)


def _margins(size: int, padded_size: int) -> tuple[int, int]:
    """Pixels before and after; the odd one comes after."""
    before = (padded_size - size) // 2
    return before, padded_size - size - before


def _pad(image: np.ndarray, shape: np.ndarray) -> np.ndarray:
    rows, columns = (_margins(size, padded) for size, padded in zip(image.shape[:2], shape))
    return np.pad(image, (rows, columns, (0, 0)), mode="reflect")


def crop_back(padded: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The [H, W] part of a padded [H', W'] map, or [H', W', 3] image, that belongs to the image."""
    (top, _), (left, _) = (_margins(*sides) for sides in zip(size, padded.shape))
    return padded[top : top + size[0], left : left + size[1]]
