"""Split files as published, or a seeded choice: of validation images, or of the patients of all splits."""

from collections.abc import Sequence
import csv
import io
import math
import os
import pathlib

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset

SPLIT_PREFIXES = {"train": "train", "validation": "val", "test": "test"}
# Divisions of the patients that are drawn, to keep the one with the most even classes.
_NUM_DRAWN = 2000


def read_folds(folder: str | pathlib.Path, everything: dataset.Split) -> dict[str, dataset.Split]:
    """Splits by published files: one each whose name starts with train, valid and test, anywhere below `folder`.

    Their rows are `image,mask,class`; images are identified by their file name without folder and suffix.

    Args:
        folder: where the files are.
        everything: all examples of the dataset.

    Raises:
        ValueError: for a missing, ambiguous or empty file, a row that names no example of the dataset or another
            class than it has, and an image that is listed twice.
    """
    places = {name: index for index, name in enumerate(everything.names)}
    splits, seen = {}, {}
    for split, prefix in SPLIT_PREFIXES.items():
        path = _find_file(local_path("folds", folder), prefix)
        indices = []
        for line, (name, class_name) in _read_rows(path):
            where = f"{path}, line {line}"
            if name not in places:
                raise dataset.DataError(f"{where}: image {name!r} is not in the prepared dataset.")
            index = places[name]
            label_name = everything.class_names[everything.labels[index]]
            if class_name != label_name:
                raise dataset.DataError(f"{where}: image {name!r} has class {class_name!r}, not {label_name!r}.")
            if name in seen:
                raise dataset.DataError(f"{where}: image {name!r} is already in {seen[name]}.")
            seen[name] = where
            indices.append(index)
        if not indices:
            raise dataset.DataError(f"{path} has no rows: the {split} split would be empty.")
        splits[split] = dataset.subset(everything, indices)
    return splits


def _find_file(folder: pathlib.Path, prefix: str) -> pathlib.Path:
    paths = find_files(folder, prefix)
    if len(paths) != 1:
        listed = ", ".join(map(str, paths)) or "none"
        raise OptionError(f"folds={str(folder)!r} must hold exactly one {prefix}*.csv, found: {listed}.")
    return paths[0]


def find_files(folder: pathlib.Path, prefix: str) -> list[pathlib.Path]:
    """The CSV files of a split, anywhere below a folder.

    Raises:
        DataError: for a folder that cannot be read.
    """

    def stop(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise dataset.DataError(
                f"{error.filename} cannot be read ({error.strerror}). Change its permissions."
            ) from error

    # Path.rglob passes over folders that it may not read.
    files = (pathlib.Path(place, name) for place, _, names in os.walk(folder, onerror=stop) for name in names)
    return sorted(path for path in files if path.name.startswith(prefix) and path.suffix == ".csv")


def _read_rows(path: pathlib.Path):
    """Yields (line number, (image name, class name))."""
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        for row in reader:
            if not row:
                continue
            if len(row) != 3:
                raise dataset.DataError(f"{path}, line {reader.line_num}: {row} is not `image,mask,class`.")
            yield reader.line_num, (pathlib.PurePosixPath(row[0].strip()).stem, row[2].strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise dataset.DataError(f"{path} is not a CSV file in UTF-8 ({error}). Get it again, or save it so.") from error


def choose_validation(labels: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Separates training examples into training and validation.

    Args:
        labels: [N] classes.
        share: of each class that validates, rounded up.
        seed: of the choice.

    Returns:
        Indices of the training and of the validation examples, each in ascending order.

    Raises:
        ValueError: if a class would have no training example left.
    """
    rng = np.random.RandomState(seed)
    validation = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = math.ceil(share * len(members))
        if count >= len(members):
            raise dataset.DataError(f"Class {label} has {len(members)} training images: none is left for training.")
        validation.extend(rng.permutation(members)[:count])
    validation = np.sort(validation)
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def choose_patients(
    labels: np.ndarray, patients: Sequence[str], *, validation_share: float, seed: int
) -> dict[str, np.ndarray]:
    """Divides all examples by patient: about half of each class tests, a share of the others validates.

    Of many divisions that are drawn, the one is kept whose counts of examples, by split and class, are nearest to those
    shares (chi-squared distance) with every class in every split.

    Args:
        labels: [N] classes.
        patients: [N] whom the examples are of.
        validation_share: share of the examples outside of the test split, for validation.
        seed: of the draws.

    Returns:
        {split: indices in ascending order}.

    Raises:
        ValueError: if no division that was drawn has all classes in all splits.
    """
    names, patients = np.unique(patients, return_inverse=True)
    counts = np.zeros((len(names), labels.max() + 1), int)
    np.add.at(counts, (patients, labels), 1)
    shares = np.array([(1 - validation_share) / 2, validation_share / 2, 1 / 2])
    drawn = np.random.RandomState(seed).choice(3, size=(_NUM_DRAWN, len(names)), p=shares)
    drawn_counts = np.stack([(drawn == split) @ counts for split in range(3)], axis=1)  # [_NUM_DRAWN, 3, C]
    goal = shares[:, None] * counts.sum(axis=0)
    distance = np.sum((drawn_counts - goal) ** 2 / goal, axis=(1, 2))
    distance[~drawn_counts.all(axis=(1, 2))] = np.inf
    best = np.argmin(distance)
    if np.isinf(distance[best]):
        raise dataset.DataError(
            f"The {len(names)} patients cannot be divided so that training, validation and test have images of all"
            " classes. Use split='released'."
        )
    return {name: np.flatnonzero(drawn[best][patients] == split) for split, name in enumerate(SPLIT_PREFIXES)}
