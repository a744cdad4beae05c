"""GlaS: 165 H&E images of colon glands, benign or malignant, with gland annotations.

Sirinukunwattana et al., "Gland segmentation in colon histology images: the GlaS challenge contest", Medical Image
Analysis 2017; also known as the Warwick-QU set. For research; not for commercial use.

The official layout is one folder with `NAME.bmp` and `NAME_anno.bmp` for each image and `Grade.csv` with their
classes. A pixel is foreground where its annotation is above 0; the values number the glands. Test A and test B are one
test set, as published.
"""

import csv
import dataclasses
import io
import pathlib
import zipfile

from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset, raw_files
from minmax_jax.data.importing import mask_rules, raw_dataset

OFFICIAL_FOLDER = "Warwick QU Dataset (Released 2016_07_08)"
HOMEPAGE = "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/"
CLASS_NAMES = ("benign", "malignant")
NUM_IMAGES = {"train": 85, "test": 80}
_GRADE_COLUMN = "grade (GlaS)"
_PATIENT_COLUMN = "patient ID"


def read_raw(source: str) -> raw_dataset.RawDataset:
    """The images that Grade.csv lists.

    Args:
        source: the official layout: a folder, or a ZIP file.

    Raises:
        DataError: for a folder that is none, another number of images, or images without a class.
    """
    folder = open_source(source)
    grades, patients = read_grades(folder), read_patients(folder)
    items = [
        raw_dataset.Item(
            name, grade, image=folder / f"{name}.bmp", mask=folder / f"{name}_anno.bmp", patient=patients[name]
        )
        for name, grade in grades.items()
    ]
    splits = {split: [item for item in items if _split_of(item.name) == split] for split in NUM_IMAGES}
    problems = [
        f"Grade.csv lists {len(splits[split])} {split} images; the official dataset has {count}."
        for split, count in NUM_IMAGES.items()
        if len(splits[split]) != count
    ]
    files = {pathlib.PurePosixPath(path.name).stem for path in folder.iterdir() if path.name.endswith(".bmp")}
    for name in sorted(files - grades.keys()):
        if not name.endswith("_anno"):
            problems.append(f"{name}.bmp has no class: it is not in Grade.csv.")
    if problems:
        raise dataset.DataError(f"{folder} is not the official dataset:\n  " + "\n  ".join(problems))
    rule = dataclasses.replace(mask_rules.above(0), numbers_objects=True)
    return raw_dataset.RawDataset(CLASS_NAMES, splits, rule, description=__doc__, homepage=HOMEPAGE, official=True)


def _split_of(name: str) -> str:
    return "train" if name.startswith("train") else "test"


def open_source(source: str) -> raw_files.Path:
    """The official folder: `source` itself, a folder in it, or a folder in the ZIP file that it is.

    Raises:
        DataError: if there is none.
    """
    path = local_path("source", source)
    if not path.exists():
        raise OptionError(f"source={source!r} does not exist. Get the dataset from {HOMEPAGE}.")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise OptionError(f"source={source!r} is neither a folder nor a ZIP file.")
    try:
        root = path if path.is_dir() else zipfile.Path(path)
        for folder in (root, root / OFFICIAL_FOLDER, *(entry for entry in root.iterdir() if entry.is_dir())):
            if (folder / "Grade.csv").is_file():
                return folder
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise dataset.DataError(f"{path} is not a complete archive ({error}). Get it again from {HOMEPAGE}.") from error
    raise OptionError(f"source={source!r} holds no Grade.csv, neither at its top nor in a folder there.")


def read_grades(folder: raw_files.Path) -> dict[str, str]:
    """Class name of each image, from Grade.csv.

    Raises:
        DataError: for a file without the column of classes, or a class that is neither benign nor malignant.
    """
    rows = _read_rows(folder)
    if not rows or not {"name", _GRADE_COLUMN} <= rows[0].keys():
        raise dataset.DataError(f"Grade.csv needs the columns `name` and `{_GRADE_COLUMN}`.")
    grades = {}
    for row in rows:
        if row[_GRADE_COLUMN] not in CLASS_NAMES:
            raise dataset.DataError(
                f"Grade.csv gives {row['name']!r} the class {row[_GRADE_COLUMN]!r}; it must be one of {CLASS_NAMES}."
            )
        if row["name"] in grades:
            raise dataset.DataError(f"Grade.csv lists {row['name']!r} twice. Get the dataset again from {HOMEPAGE}.")
        grades[row["name"]] = row[_GRADE_COLUMN]
    return grades


def read_patients(folder: raw_files.Path) -> dict[str, str]:
    """The patient of each image, from Grade.csv; "" where it does not say."""
    return {row["name"]: row.get(_PATIENT_COLUMN, "") for row in _read_rows(folder)}


def _read_rows(folder: raw_files.Path) -> list[dict[str, str]]:
    """The rows of Grade.csv, without the spaces that its fields start with."""
    rows = csv.DictReader(io.StringIO(raw_files.read_text(folder / "Grade.csv")))
    try:
        return [{key.strip(): (value or "").strip() for key, value in row.items() if key} for row in rows]
    except csv.Error as error:
        raise dataset.DataError(f"Grade.csv is not a CSV file ({error}). Get it again from {HOMEPAGE}.") from error
