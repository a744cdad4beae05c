"""Prepared datasets: the splits to train, validate and test on, and the records that their images are read from."""

import dataclasses
import functools
import pathlib
import threading
from typing import Any

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset, image_files, metadata, record_index, splits

# Of the form of the records: what an earlier version wrote must be prepared again.
VERSION = "2.0.0"
# Defaults of the choice of validation images; 0.2 is published.
_VALIDATION_SHARE, _VALIDATION_SEED = 0.2, 0
SPLITS = ("train", "validation", "test")
# Without the second, TFDS would call the classes 0, 1 and so on.
_PARTS = ("dataset_info.json", "label.labels.txt")


class NotPreparedError(OptionError):
    """There is no prepared dataset of that name; the program knows how to prepare it."""


def load(
    data_dir: str,
    name: str,
    *,
    class_names: tuple[str, ...] = (),
    folds_dir: str = "",
    validation_share: float = _VALIDATION_SHARE,
    seed: int = _VALIDATION_SEED,
    split: str = "released",
) -> dict[str, dataset.Split]:
    """The splits "train", "validation" and "test" of a prepared dataset.

    Args:
        data_dir: folder with prepared datasets.
        name: of the dataset.
        class_names: the classes to use; empty means all.
        folds_dir: folder of published split files. Without it the released splits are used, and where these have no
            validation images, a share of each training class is taken.
        validation_share: that share, rounded up; 0.2 gives the published sizes of GlaS, CUB and CUB5.
        seed: of that choice, or of the choice of patients.
        split: "released", or "patients": all images anew, so that no patient is in two splits. Not with `folds_dir`.

    Raises:
        NotPreparedError: if the dataset was not prepared.
        DataError: if it is damaged, if the split files do not fit it, or if its patients are not known.
        OptionError: for a share or a seed that nothing reads.
    """
    released = read_splits(data_dir, name)
    if class_names:
        released = {split: dataset.only_classes(part, class_names) for split, part in released.items()}
    is_split = folds_dir or (split != "patients" and "validation" in released)
    if is_split and (validation_share, seed) != (_VALIDATION_SHARE, _VALIDATION_SEED):
        raise OptionError(
            f"validation_share={validation_share} and validation_seed={seed} have no effect: validation images are"
            f" those of {'the split files' if folds_dir else 'the prepared data'}. Leave them at"
            f" {_VALIDATION_SHARE} and {_VALIDATION_SEED}."
        )
    if folds_dir:
        return splits.read_folds(folds_dir, functools.reduce(dataset.concatenate, released.values()))
    if split == "patients":
        return _split_by_patient(name, released, validation_share, seed)
    if "validation" in released:
        return released
    labels, names = released["train"].labels, released["train"].class_names
    for label, count in enumerate(np.bincount(labels, minlength=len(names))):
        if count == 1:
            raise dataset.DataError(
                f"The class {names[label]!r} has one training image, and one image of each class must validate. Add"
                " images of it, or prepare the data with validation images."
            )
    train, validation = splits.choose_validation(labels, share=validation_share, seed=seed)
    return {
        "train": dataset.subset(released["train"], train),
        "validation": dataset.subset(released["train"], validation),
        "test": released["test"],
    }


def _split_by_patient(name: str, released: dict[str, dataset.Split], validation_share: float, seed: int):
    everything = functools.reduce(dataset.concatenate, released.values())
    if not everything.patients or "" in everything.patients:
        raise dataset.DataError(
            f"split='patients' needs the patient of each image, and the prepared {name!r} dataset lacks it. If it is"
            " GlaS, an earlier version prepared it: delete it and prepare it again."
        )
    chosen = splits.choose_patients(
        everything.labels, everything.patients, validation_share=validation_share, seed=seed
    )
    return {part: dataset.subset(everything, indices) for part, indices in chosen.items()}


def read_splits(data_dir: str | pathlib.Path, name: str) -> dict[str, dataset.Split]:
    """The splits of a prepared dataset as they were released, each in the order of its names.

    Raises:
        NotPreparedError: if the dataset was not prepared, or by another version.
        DataError: if it is damaged.
    """
    folder = local_path("dir", data_dir) / name / VERSION
    missing = [part for part in _PARTS if not (folder / part).is_file() or not (folder / part).stat().st_size]
    if data_dir and folder.exists() and missing:
        raise dataset.DataError(f"{folder} is damaged ({missing[0]} is missing). Delete it and prepare it again.")
    if not data_dir or missing:
        older = ", ".join(path.parent.name for path in folder.parent.glob("[0-9]*/dataset_info.json"))
        other = f" of version {VERSION}, only of {older}, by another version of this library" if older else ""
        raise NotPreparedError(f"dir={str(data_dir)!r} holds no prepared {name!r} dataset{other}.")
    of_all = metadata.read(folder)
    return {
        split: _to_split(folder, split, part, of_all) for split, part in record_index.read(folder, _build_index).items()
    }


def _to_split(folder: pathlib.Path, split: str, index: dict[str, Any], of_all: metadata.Metadata) -> dataset.Split:
    stamp = (folder / _PARTS[0]).stat().st_mtime_ns
    everything = dataset.Split(
        names=tuple(index["names"]),
        labels=np.array(index["labels"], np.int32),
        class_names=tuple(index["class_names"]),
        sizes=np.array(index["sizes"]),
        patients=tuple(index["patients"]),
        reading=of_all.reading,
        microns_per_pixel=of_all.microns_per_pixel,
        background_classes=of_all.background_classes,
        **{
            f"read_{feature}": _Reader(str(folder), split, stamp, feature)
            for feature in ("image", "mask", "boxes", "ignored", "instances")
        },
    )
    return dataset.subset(everything, np.argsort(index["names"]))


def _build_index(folder: pathlib.Path) -> dict[str, Any]:
    """Names, labels, sizes and patients of all splits, in the order of their records, and the classes.

    Raises:
        DataError: if the records are damaged.
    """
    builder = _open_builder(str(folder))
    class_names = list(builder.info.features["label"].names or ())
    return {
        split: {"class_names": class_names, **_index_split(folder, split, len(class_names))}
        for split in SPLITS
        if split in builder.info.splits
    }


def _index_split(folder: pathlib.Path, split: str, num_classes: int) -> dict[str, list]:
    index = {"names": [], "labels": [], "sizes": [], "patients": []}
    source = open_records(str(folder), split)
    for number in range(len(source)):
        record = _read(folder, source, number)
        # array_record returns empty values, without an error, for records that were cut off.
        if not record["name"] or record["label"] >= num_classes:
            raise _damaged(folder, f"records of {split} or the names of their classes are missing")
        index["names"].append(record["name"].decode())
        index["labels"].append(int(record["label"]))
        index["sizes"].append(record["size"].tolist())
        index["patients"].append(record.get("patient", b"").decode())  # an earlier version wrote none
    return index


def _read(folder: str | pathlib.Path, source: Any, number: int) -> dict[str, Any]:
    try:
        return source[number]
    except RuntimeError as error:
        raise _damaged(folder, error) from error


def _damaged(folder: str | pathlib.Path, reason: Any) -> dataset.DataError:
    return dataset.DataError(f"{folder} is damaged ({reason}). Delete it and prepare it again.")


def _open_builder(folder: str):
    from google.protobuf import json_format
    import tensorflow_datasets as tfds  # Here, because it takes seconds to import.

    try:
        return tfds.builder_from_directory(folder)
    # ValueError: features.json.
    except (RuntimeError, ValueError, json_format.ParseError) as error:
        raise _damaged(folder, error) from error


def open_records(folder: str, split: str) -> Any:
    """The records of a split, [N]; images and masks as encoded files.

    An earlier version gave masks and objects the type of images, which they are not where they are empty.
    """
    import tensorflow_datasets as tfds

    builder = _open_builder(folder)
    images = {"image", "mask", "instances"} & builder.info.features.keys()  # an earlier version wrote no instances
    encoded = dict.fromkeys(images, tfds.decode.SkipDecoding())
    try:
        return builder.as_data_source(split, decoders=encoded)
    except (RuntimeError, ValueError) as error:
        raise _damaged(folder, error) from error


# By folder, split and modification time.
_opened_records = functools.lru_cache(lambda folder, split, stamp: open_records(folder, split))
# Two threads that load TFDS at once can wait for each other for ever: one holds the lock of an import, the other that
# of etils' lazy modules.
_opening = threading.Lock()


def _open_in_turn(folder: str, split: str, stamp: int) -> Any:
    with _opening:
        return _opened_records(folder, split, stamp)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads one feature of a record; picklable, opens the records on first use in each process."""

    folder: str
    split: str
    stamp: int
    feature: str

    def __call__(self, index: int) -> np.ndarray | None:
        record = _read(self.folder, _open_in_turn(self.folder, self.split, self.stamp), index)
        name = record["name"].decode()
        if self.feature == "image":
            return image_files.read_rgb(record["image"], f"The image of {name!r}")
        if self.feature == "boxes":
            return record["boxes"]
        if self.feature == "instances":
            return _decode_instances(record.get("instances", b""), f"The objects of {name!r}")
        return decode_mask(record["mask"], f"The mask of {name!r}", is_ignored=self.feature == "ignored")


def _decode_instances(content: bytes, name: str) -> np.ndarray | None:
    return np.asarray(image_files.open_picture(content, name)).astype(np.int32) if content else None


def decode_mask(content: bytes, name: str, *, is_ignored: bool) -> np.ndarray | None:
    """[H, W] bool of a record's mask, None where there is none.

    Of a mask with one bit a pixel the foreground; of any other what the values 1 and `dataset.IGNORED` mark.

    Args:
        content: of the PNG file, empty where there is none.
        name: of the file, for messages.
        is_ignored: whether what is asked for is what no metric may count, not the foreground.
    """
    if not content:
        return None
    values = np.asarray(image_files.open_picture(content, name))
    if values.dtype == bool:
        return None if is_ignored else values
    return values == (dataset.IGNORED if is_ignored else 1)
