"""Prepared datasets on disk: TFDS folders of array_record files with images, masks, boxes, labels and names."""

from collections.abc import Callable
import dataclasses
import errno
import logging
import pathlib
import shutil

from google.protobuf import json_format
import numpy as np
import tensorflow_datasets as tfds
import tqdm

from minmax_jax.data import dataset, image_files
from minmax_jax.data.importing import checks, problems, raw_dataset

logger = logging.getLogger(__name__)
# Of the records' form: what an earlier one wrote is prepared again.
VERSION = "2.0.0"
SPLITS = ("train", "validation", "test")
SCRATCH = "incomplete.unpacked"
_WRITTEN = "incomplete.written"
_RECORDS_PER_FILE = 1000
# Without the second TFDS would call the classes 0, 1 and so on.
_PARTS = ("dataset_info.json", "label.labels.txt")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PUBLISHED = ("glas", "cub", "oxford_flowers")
_ENCODED = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}


def features(class_names: tuple[str, ...]) -> tfds.features.FeaturesDict:
    """What a record holds: files as they are encoded, an empty mask where there is none, boxes as shares."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "name": tfds.features.Text(),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
        }
    )


def prepare(
    name: str,
    read_release: Callable[[pathlib.Path], raw_dataset.Release],
    data_dir: str | pathlib.Path,
    *,
    skip_bad: bool = False,
) -> pathlib.Path:
    """Checks a release and writes it as a dataset, or finds it written.

    It is written to a folder named "incomplete", which is renamed at the end, so what has the final name is whole. What
    a run that was killed left is removed first.

    Args:
        name: of the dataset.
        read_release: takes a folder that archives can be unpacked to, which is removed afterwards.
        data_dir: folder to write to.
        skip_bad: whether images that cannot be used are left out, and listed in a file beside the records.

    Returns:
        The dataset's folder.

    Raises:
        DataError: if the release cannot be used, or if the folder cannot be written.
    """
    parent = pathlib.Path(data_dir) / name
    folder = parent / VERSION
    _remove_leftovers(parent)
    if folder.exists():
        logger.info("%s is prepared already; the source was not read. To prepare it anew, delete it.", folder)
        return folder
    try:
        found = checks.check(read_release(parent / SCRATCH), skip_bad=skip_bad)
        _write(name, found, parent / _WRITTEN)
        (parent / _WRITTEN).rename(folder)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise _cannot_write(parent, error) from error
    finally:
        _remove_leftovers(parent)
    return folder


def _write(name: str, found: raw_dataset.Release, folder: pathlib.Path) -> None:
    """Writes record after record: a builder of TFDS would hold whole splits, and above 1 GB it needs TensorFlow."""
    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(name, tfds.core.Version(VERSION), str(folder), module_name=__name__)
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features(found.class_names),
        description=found.description,
        homepage=found.homepage,
    )
    writer = tfds.core.SequentialWriter(info, _RECORDS_PER_FILE, file_format="array_record")
    try:
        writer.initialize_splits(list(found.splits))
        for split, items in found.splits.items():
            progress = tqdm.tqdm(items, desc=f"Writing {split}", unit="image")
            writer.add_examples({split: (record for item in progress for record in found.read_records(item, found))})
        writer.close_all()
        problems.write(found.bad, folder)
    # What array_record raises where the disk is full.
    except RuntimeError as error:
        raise _cannot_write(folder.parent, error) from error


def _cannot_write(parent: pathlib.Path, error: Exception) -> dataset.DataError:
    return dataset.DataError(
        f"{parent} cannot be written ({error}). Nothing is left there. Make room, or give another --data_dir, and run"
        " the same command again."
    )


def _remove_leftovers(parent: pathlib.Path) -> None:
    for leftover in parent.glob("incomplete.*"):
        logger.info("Removing %s.", leftover)
        shutil.rmtree(leftover)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads one feature of a record; picklable."""

    source: object
    feature: str

    def __call__(self, index: int) -> np.ndarray | None:
        record = self.source[index]
        content, name = record[self.feature], f"The {self.feature} of {record['name'].decode()!r}"
        if self.feature == "image":
            return image_files.read_rgb(content, name)
        if self.feature == "mask":
            return np.asarray(image_files.open_picture(content, name)) if content else None
        return content


def read_splits(data_dir: str, name: str) -> dict[str, dataset.Split]:
    """The splits of a prepared dataset as they were released, each in the order of its names.

    Raises:
        DataError: if it was not prepared, or by another version, or if it is damaged.
    """
    folder = pathlib.Path(data_dir) / name / VERSION
    missing = [part for part in _PARTS if not (folder / part).is_file() or not (folder / part).stat().st_size]
    if data_dir and folder.exists() and missing:
        raise dataset.DataError(f"{folder} is damaged ({missing[0]} is missing). Delete it, and prepare it again.")
    if not data_dir or missing:
        older = ", ".join(path.parent.name for path in folder.parent.glob("[0-9]*/dataset_info.json"))
        raise dataset.DataError(
            f"config.data.dir={data_dir!r} holds no prepared {name!r} dataset"
            + (f" of version {VERSION}, only of {older}, by another version of this library" if older else "")
            + ". Prepare it with\n"
            f"  python -m experiments.prepare_data {_flags_of(name)} --source=FOLDER_OR_ARCHIVE --data_dir=DIR\n"
            "(docs/data.md tells of other sources) and set --config.data.dir=DIR."
        )
    try:
        builder = tfds.builder_from_directory(folder)
        return {split: _read_split(builder, split) for split in SPLITS if split in builder.info.splits}
    # ValueError: features.json.
    except (RuntimeError, ValueError, json_format.ParseError) as error:
        raise dataset.DataError(f"{folder} is damaged ({error}). Delete it, and prepare it again.") from error


def _flags_of(name: str) -> str:
    return f"--dataset={name}" if name in _PUBLISHED else f"--dataset=image_folder --name={name}"


def _read_split(builder: tfds.core.DatasetBuilder, split: str) -> dataset.Split:
    source = builder.as_data_source(split, decoders=_ENCODED)
    records = [{key: record[key] for key in ("name", "label", "size")} for record in source]
    class_names = tuple(builder.info.features["label"].names or ())
    # array_record returns nothing from what was cut off, without a word.
    if not all(record["name"] and record["label"] < len(class_names) for record in records):
        raise ValueError(f"records of {split} or the names of their classes are missing")
    names = [record["name"].decode() for record in records]
    everything = dataset.Split(
        names=tuple(names),
        labels=np.array([record["label"] for record in records], np.int32),
        class_names=class_names,
        sizes=np.array([record["size"] for record in records]),
        read_image=_Reader(source, "image"),
        read_mask=_Reader(source, "mask"),
        read_boxes=_Reader(source, "boxes"),
    )
    return dataset.subset(everything, np.argsort(names))


def check(data_dir: str, name: str) -> None:
    """Reads every image, mask and box of a prepared dataset, with progress.

    Raises:
        DataError: listing what cannot be read or does not fit.
    """
    problems = []
    for split_name, split in read_splits(data_dir, name).items():
        for index in tqdm.tqdm(range(len(split)), desc=f"Checking {split_name}", unit="image"):
            try:
                fault = _find_fault(split, index)
            except (dataset.DataError, RuntimeError) as error:
                fault = str(error)
            if fault:
                problems.append(f"{split_name}, {split.names[index]!r}: {fault}")
    if problems:
        raise dataset.DataError(
            f"{pathlib.Path(data_dir, name)} is damaged. Delete it, and prepare it again. {len(problems)} problems:\n  "
            + "\n  ".join(problems)
        )


def _find_fault(split: dataset.Split, index: int) -> str:
    size, mask, boxes = tuple(split.sizes[index].tolist()), split.read_mask(index), split.read_boxes(index)
    found = split.read_image(index).shape[:2]
    if found != size:
        return f"the image has {found} pixels instead of {size}."
    if mask is not None and mask.shape != size:
        return f"the mask has {mask.shape} pixels, the image {size}."
    if not ((boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()):
        return f"the boxes {boxes.tolist()} are no boxes."
    if not 0 <= split.labels[index] < len(split.class_names):
        return f"the label {split.labels[index]} is none of {len(split.class_names)} classes."
    return ""
