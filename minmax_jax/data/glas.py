"""GlaS: 165 H&E images of colon glands, benign or malignant, with gland annotations.

Sirinukunwattana et al., "Gland segmentation in colon histology images: the GlaS challenge contest", Medical Image
Analysis 2017; also known as the Warwick-QU set. For research; not for commercial use.

The official layout is one folder with `NAME.bmp` and `NAME_anno.bmp` for each image and `Grade.csv` with their
classes. A pixel is foreground where its annotation is above 0. Test A and test B are one test set, as published.
"""

from collections.abc import Iterator
import csv
import io
import pathlib
import zipfile

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from minmax_jax.data import dataset, folds, records

OFFICIAL_FOLDER = "Warwick QU Dataset (Released 2016_07_08)"
HOMEPAGE = "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/"
CLASS_NAMES = ("benign", "malignant")
NUM_IMAGES = {"train": 85, "test": 80}
_GRADE_COLUMN = "grade (GlaS)"

# A folder, or a folder inside a ZIP file: both can be read alike.
Folder = pathlib.Path | zipfile.Path


class Glas(tfds.core.GeneratorBasedBuilder):
    """TFDS builder over the official layout, given as `source` (folder or ZIP file)."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source: str = "", **kwargs):
        self._folder = open_source(source)
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=records.features(CLASS_NAMES), description=__doc__, homepage=HOMEPAGE
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        grades = check(self._folder)
        return {split: self._generate_examples(split, grades) for split in NUM_IMAGES}

    def _generate_examples(self, split: str, grades: dict[str, str]) -> Iterator[tuple[str, dict]]:
        for name, grade in grades.items():
            if _split_of(name) == split:
                yield name, records.encode(name, grade, *read_example(self._folder, name))


def _split_of(name: str) -> str:
    return "train" if name.startswith("train") else "test"


def open_source(source: str) -> Folder:
    """The official folder: `source` itself, a folder in it, or a folder in the ZIP file that it is.

    Raises:
        DataError: if there is none.
    """
    path = pathlib.Path(source)
    if not path.exists():
        raise records.DataError(f"--source={source!r} does not exist. Get the dataset from {HOMEPAGE}.")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise records.DataError(f"--source={source!r} is neither a folder nor a ZIP file.")
    root = path if path.is_dir() else zipfile.Path(path)
    for folder in (root, root / OFFICIAL_FOLDER):
        if (folder / "Grade.csv").is_file():
            return folder
    raise records.DataError(f"--source={source!r} holds no Grade.csv, neither at its top nor in {OFFICIAL_FOLDER!r}.")


def read_grades(folder: Folder) -> dict[str, str]:
    """Class name of each image, from Grade.csv.

    Raises:
        DataError: for a file without the column of classes, or a class that is neither benign nor malignant.
    """
    rows = csv.DictReader(io.StringIO((folder / "Grade.csv").read_text(encoding="utf-8-sig")))
    rows = [{key.strip(): (value or "").strip() for key, value in row.items() if key} for row in rows]
    if not rows or not {"name", _GRADE_COLUMN} <= rows[0].keys():
        raise records.DataError(f"Grade.csv needs the columns `name` and `{_GRADE_COLUMN}`.")
    for row in rows:
        if row[_GRADE_COLUMN] not in CLASS_NAMES:
            raise records.DataError(
                f"Grade.csv gives {row['name']!r} the class {row[_GRADE_COLUMN]!r}; it must be one of {CLASS_NAMES}."
            )
    return {row["name"]: row[_GRADE_COLUMN] for row in rows}


def read_example(folder: Folder, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] uint8 and mask [H, W] bool.

    Raises:
        DataError: if one is missing, is no whole image, is too small, or if their sizes differ.
    """
    pixels = []
    for file_name, mode in ((f"{name}.bmp", "RGB"), (f"{name}_anno.bmp", None)):
        if not (folder / file_name).is_file():
            raise records.DataError(f"{file_name} is missing in {folder}.")
        pixels.append(records.decode_file((folder / file_name).read_bytes(), file_name, mode=mode))
    image, annotation = pixels
    mask = annotation > 0 if annotation.ndim == 2 else (annotation[..., :3] > 0).any(axis=-1)
    if image.shape[:2] != mask.shape:
        raise records.DataError(
            f"{name}_anno.bmp has {mask.shape} pixels (height, width), its image {name}.bmp {image.shape[:2]}."
        )
    if min(mask.shape) < dataset.LEAST_SIDE:
        raise records.DataError(
            f"{name}.bmp has {mask.shape} pixels (height, width); each side needs at least {dataset.LEAST_SIDE}."
        )
    return image, mask


def check(folder: Folder) -> dict[str, str]:
    """Reads everything once, with progress.

    Returns:
        Class name of each image.

    Raises:
        DataError: listing every problem: wrong counts, images without a class, files that cannot be used.
    """
    grades = read_grades(folder)
    problems = []
    for split, count in NUM_IMAGES.items():
        found = sum(_split_of(name) == split for name in grades)
        if found != count:
            problems.append(f"Grade.csv lists {found} {split} images; the official release has {count}.")
    files = {pathlib.PurePosixPath(path.name).stem for path in folder.iterdir() if path.name.endswith(".bmp")}
    for name in sorted(files - grades.keys()):
        if not name.endswith("_anno"):
            problems.append(f"{name}.bmp has no class: it is not in Grade.csv.")
    for name in tqdm.tqdm(grades, desc="Checking images", unit="image"):
        try:
            read_example(folder, name)
        except records.DataError as error:
            problems.append(str(error))
    if problems:
        raise records.DataError(f"{folder} is not the official release:\n  " + "\n  ".join(problems))
    return grades


def load(
    data_dir: str, *, folds_dir: str = "", validation_share: float = 0.2, seed: int = 0
) -> dict[str, dataset.Split]:
    """The prepared dataset's splits "train", "validation" and "test".

    Args:
        data_dir: what `prepare_data` wrote.
        folds_dir: folder of published split files; without it, a share of each training class validates.
        validation_share: that share, rounded up; 0.2 gives the published sizes, 67 and 18.
        seed: of that choice.

    Raises:
        DataError: if the dataset was not prepared.
        ValueError: if the split files do not fit it.
    """
    official = records.load(data_dir, "glas")
    if folds_dir:
        return folds.read_folds(folds_dir, dataset.concatenate(official["train"], official["test"]))
    train, validation = folds.choose_validation(official["train"].labels, share=validation_share, seed=seed)
    return {
        "train": dataset.subset(official["train"], train),
        "validation": dataset.subset(official["train"], validation),
        "test": official["test"],
    }
