"""Prepared datasets on disk: TFDS folders of array_record files with images, masks, boxes, labels and names."""

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import logging
import os
import pathlib
import shutil

import numpy as np

from minmax_jax.base import disk, progress
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset, load, metadata
from minmax_jax.data.importing import checks, problems, raw_dataset

logger = logging.getLogger(__name__)
SCRATCH = "incomplete.unpacked"
_WRITTEN = "incomplete.written"
_RECORDS_PER_FILE = 1000


def features(class_names: tuple[str, ...]):
    """What a record holds. TFDS decodes the image; mask and objects are files, empty where there is none."""
    import tensorflow_datasets as tfds  # Here, because it takes seconds to import.

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            # TFDS's Image cannot be empty, nor has it 16 bits without OpenCV.
            "mask": tfds.features.Text(doc="PNG of the foreground, bool, or uint8 with 2 where ignored; b'' without."),
            "instances": tfds.features.Text(doc="PNG of the number of each pixel's object, 0 of none; b'' without."),
            "boxes": tfds.features.Tensor(
                shape=(None, 4), dtype=np.float32, doc="(top, left, bottom, right), shares of height and width."
            ),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "name": tfds.features.Text(),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "patient": tfds.features.Text(),
        }
    )


def prepare(
    name: str,
    read_raw: Callable[[pathlib.Path], raw_dataset.RawDataset],
    data_dir: str | pathlib.Path,
    *,
    skip_bad: bool = False,
) -> pathlib.Path:
    """Checks a raw dataset and writes its records, unless they exist.

    They are written to a folder named "incomplete", which is renamed at the end: a folder with the final name is
    complete. Leftovers of a killed run are removed first.

    Args:
        name: of the dataset.
        read_raw: takes a folder that archives can be unpacked to, which is removed afterwards.
        data_dir: folder to write to.
        skip_bad: whether images that cannot be used are left out, and listed in a file next to the records.

    Returns:
        The dataset's folder.

    Raises:
        DataError: if the dataset cannot be used, if the folder cannot be written, or if another process writes there.
    """
    parent = local_path("data_dir", data_dir) / name
    with _alone(parent):
        return _prepare(name, read_raw, data_dir, parent, skip_bad)


def _prepare(
    name: str,
    read_raw: Callable[[pathlib.Path], raw_dataset.RawDataset],
    data_dir: str | pathlib.Path,
    parent: pathlib.Path,
    skip_bad: bool,
) -> pathlib.Path:
    folder = parent / load.VERSION
    _remove_leftovers(parent)
    if folder.exists():
        logger.info("%s is prepared already; the source was not read. To prepare it anew, delete it.", folder)
        return folder
    needed_bytes = 0
    try:
        raw = checks.check(read_raw(parent / SCRATCH), skip_bad=skip_bad)
        needed_bytes = raw_dataset.num_bytes(raw)
        _write(name, raw, parent / _WRITTEN)
        (parent / _WRITTEN).rename(folder)
        load.read_splits(data_dir, name)  # writes the index
    except OSError as error:
        if not disk.is_full(error):
            raise
        raise _cannot_write(parent, error, needed_bytes) from error
    finally:
        _remove_leftovers(parent)
    return folder


@contextlib.contextmanager
def _alone(parent: pathlib.Path) -> Iterator[None]:
    """Keeps other processes out of a folder, which is removed if it is empty in the end."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise dataset.DataError(
                    f"{parent} is in use: another process prepares it. Wait for it, or choose another data_dir."
                ) from None
        yield
    finally:
        os.close(folder)
        with contextlib.suppress(OSError):
            parent.rmdir()


def _write(name: str, raw: raw_dataset.RawDataset, folder: pathlib.Path) -> None:
    """Writes one record after another; TFDS's builder would hold whole splits, and needs TensorFlow above 1 GB."""
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(name, tfds.core.Version(load.VERSION), str(folder), module_name=__name__)
    known = metadata.Metadata(raw.microns_per_pixel, raw.background_classes, raw.reading).to_json()
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features(raw.class_names),
        description=raw.description,
        homepage=raw.homepage,
        metadata=tfds.core.MetadataDict(known) if known else None,
    )
    writer = tfds.core.SequentialWriter(info, _RECORDS_PER_FILE, file_format="array_record")
    try:
        writer.initialize_splits(list(raw.splits))
        for split, items in raw.splits.items():
            tracked = progress.track(items, f"Writing {split}")
            records = (record for item in tracked for record in raw.read_records(item, raw))
            writer.add_examples({split: ({key: record[key] for key in info.features} for record in records)})
        writer.close_all()
        problems.write(raw.bad, folder)
    # What array_record raises where the disk is full.
    except RuntimeError as error:
        raise _cannot_write(folder.parent, error, raw_dataset.num_bytes(raw)) from error


def _cannot_write(parent: pathlib.Path, error: Exception, needed_bytes: int) -> dataset.DataError:
    reason = f"{parent} cannot be written ({error})."
    if disk.is_full(error):
        reason = disk.explain(error, parent, needed_bytes=needed_bytes)
    return dataset.DataError(f"{reason} No partial output was kept. Make room or choose another data_dir, then rerun.")


def _remove_leftovers(parent: pathlib.Path) -> None:
    for leftover in parent.glob("incomplete.*"):
        logger.info("Removing %s.", leftover)
        shutil.rmtree(leftover)


def check(data_dir: str, name: str) -> None:
    """Reads every image, mask and box of a prepared dataset, with progress.

    Raises:
        DataError: listing what cannot be read or does not fit.
    """
    problems = []
    for split_name, split in load.read_splits(data_dir, name).items():
        for index in progress.track(range(len(split)), f"Checking {split_name}"):
            try:
                problem = _find_problem(split, index)
            except (dataset.DataError, RuntimeError) as error:
                problem = str(error)
            if problem:
                problems.append(f"{split_name}, {split.names[index]!r}: {problem}")
    if problems:
        raise dataset.DataError(
            f"{pathlib.Path(data_dir, name, load.VERSION)} is damaged. Delete it and prepare it again. {len(problems)}"
            " problems:\n  " + "\n  ".join(problems)
        )


def _find_problem(split: dataset.Split, index: int) -> str:
    size, mask, boxes = tuple(split.sizes[index].tolist()), split.read_mask(index), split.read_boxes(index)
    stored, instances = split.read_image(index).shape[:2], split.read_instances(index)
    if stored != size:
        return f"the image has {stored} pixels instead of {size}."
    if mask is not None and mask.shape != size:
        return f"the mask has {mask.shape} pixels, the image {size}."
    if instances is not None and (mask is None or not np.array_equal(instances > 0, mask)):
        return "the objects are not the foreground of the mask."
    if not ((boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()):
        return f"the boxes {boxes.tolist()} are not valid."
    if not 0 <= split.labels[index] < len(split.class_names):
        return f"the label {split.labels[index]} is not one of {len(split.class_names)} classes."
    return ""
