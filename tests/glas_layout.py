"""GlaS in its official layout, with small made-up images."""

import pathlib

import numpy as np
from PIL import Image

from minmax_jax.data.importing import glas

NAMES = (
    [f"train_{index}" for index in range(1, 86)]
    + [f"testA_{index}" for index in range(1, 61)]
    + [f"testB_{index}" for index in range(1, 21)]
)


def class_of(name: str) -> str:
    return "malignant" if int(name.split("_")[1]) % 2 else "benign"


def mask_of(index: int, size: tuple[int, int]) -> np.ndarray:
    """A block whose height tells the index."""
    height, width = size
    return np.broadcast_to((np.arange(height) < 8 + index % 16)[:, None], (height, width))


def glands_of(index: int, size: tuple[int, int]) -> np.ndarray:
    """Two glands, 1 and 2, that touch each other in the middle of the block."""
    return mask_of(index, size) * (1 + (np.arange(size[1]) >= size[1] // 2))


def patient_of(index: int) -> str:
    """One of 16, most of them with images of both classes and of both released splits."""
    return str(index % 16)


def size_of(index: int) -> tuple[int, int]:
    return 32 + index % 3, 40


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes 165 images of about 33x40 pixels, their annotations and Grade.csv; returns the official folder."""
    official = folder / glas.OFFICIAL_FOLDER
    official.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for index, name in enumerate(NAMES):
        size = size_of(index)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(official / f"{name}.bmp")
        glands = glands_of(index, size)
        values = np.where(glands > 0, 3 * glands + index % 5, 0)  # numbers in files have gaps
        Image.fromarray(values.astype(np.uint8)).save(official / f"{name}_anno.bmp")
        rows.append(f"{name},{patient_of(index)}, {class_of(name)}, healthy")
    (official / "Grade.csv").write_text("\r\n".join(rows) + "\r\n")
    return official
