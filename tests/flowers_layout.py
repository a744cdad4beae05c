"""Oxford Flowers 102 in its official layout, with small made-up images."""

import pathlib

import numpy as np
import scipy.io

from tests import encoded

SIZE = (34, 40)


def mask_of(number: int) -> np.ndarray:
    """A block whose width tells the number of the image."""
    return np.broadcast_to(np.arange(SIZE[1]) < 4 + number % 32, SIZE)


def write(folder: pathlib.Path, labels: np.ndarray, ids: dict[str, np.ndarray]) -> pathlib.Path:
    """Writes the four official parts.

    Args:
        folder: to write to.
        labels: of the images, from 1.
        ids: of the images, from 1, by "trnid", "valid" and "tstid".
    """
    (folder / "jpg").mkdir(parents=True)
    (folder / "segmim").mkdir()
    image = encoded.encode(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8), "JPEG")
    segmentations = {}
    for number in range(1, len(labels) + 1):
        (folder / "jpg" / f"image_{number:05d}.jpg").write_bytes(image)
        if number % 32 not in segmentations:
            # Lossless: at small sizes JPEG blurs across the border. The content tells what a file is.
            colors = np.where(mask_of(number)[..., None], np.uint8([200, 60, 254]), np.uint8([0, 0, 254]))
            segmentations[number % 32] = encoded.encode(colors)
        (folder / "segmim" / f"segmim_{number:05d}.jpg").write_bytes(segmentations[number % 32])
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    scipy.io.savemat(folder / "setid.mat", {name: np.array([numbers], np.uint16) for name, numbers in ids.items()})
    return folder
