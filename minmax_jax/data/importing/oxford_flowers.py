"""Oxford Flowers 102: 8,189 photographs of 102 flowers, with segmentations that a program made.

Nilsback and Zisserman, "Automated flower classification over a large number of classes", ICVGIP 2008.

The official files are `102flowers.tgz` (`jpg/image_00001.jpg` and so on), `102segmentations.tgz`
(`segmim/segmim_00001.jpg`: the flower on blue), `imagelabels.mat` (the labels, from 1) and `setid.mat` (which images
train, validate and test). A class is named by its label counted from 0, as in the published split files.
"""

from collections.abc import Sequence
import pathlib

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset
from minmax_jax.data.importing import archives, download, mask_rules, mat_files, raw_dataset

HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
# Each part of the release, and the archive that holds it.
PARTS = {
    "jpg": "102flowers.tgz",
    "segmim": "102segmentations.tgz",
    "imagelabels.mat": "imagelabels.mat",
    "setid.mat": "setid.mat",
}
# Sizes and checksums are those that tensorflow_datasets publishes (oxford_flowers102/checksums.tsv); of the
# segmentations nobody publishes any.
FILES = (
    download.File(
        (f"{HOMEPAGE}102flowers.tgz",),
        size=344862509,
        sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
    ),
    download.File((f"{HOMEPAGE}102segmentations.tgz",)),
    download.File(
        (f"{HOMEPAGE}imagelabels.mat",),
        size=502,
        sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
    ),
    download.File(
        (f"{HOMEPAGE}setid.mat",),
        size=14989,
        sha256="46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
    ),
)
_SPLITS = {"train": "trnid", "validation": "valid", "test": "tstid"}
_BLUE = np.array([0, 0, 254])
# Euclidean distance in RGB. JPEG leaves less around a flower (all but 1 % of it at quality 75), and blue flowers are
# farther: docs/image_files.md has the measurements.
_TOLERANCE = 60
PUBLISHED = "published"


def read_raw(sources: Sequence[str], scratch: pathlib.Path, *, foreground: str = "") -> raw_dataset.RawDataset:
    """All images, in the official splits.

    Args:
        sources: folders with the official files, unpacked or not, or these files themselves.
        scratch: folder to unpack archives to.
        foreground: "": what is not near the blue of the background; "published": what is not exactly that blue.

    Raises:
        OptionError: for another rule.
        DataError: if a part is missing, or if labels and splits do not fit each other.
    """
    if foreground not in ("", PUBLISHED):
        raise OptionError(f"foreground={foreground!r} must be {PUBLISHED!r} for oxford_flowers, or left out.")
    rule = is_flower if foreground == PUBLISHED else is_far_from_blue
    jpg, segmim, labels_file, splits_file = (
        archives.find(sources, part, archive=archive, scratch=scratch, homepage=HOMEPAGE)
        for part, archive in PARTS.items()
    )
    (labels,) = _read_mat(labels_file, ["labels"])
    ids = dict(zip(_SPLITS, _read_mat(splits_file, _SPLITS.values())))
    every_id = np.concatenate(list(ids.values()))
    if not np.array_equal(np.sort(every_id), np.arange(1, len(labels) + 1)):
        raise dataset.DataError(
            f"{splits_file} must name each of the {len(labels)} images of {labels_file.name} once. Get both again from"
            f" {HOMEPAGE}."
        )
    classes = np.arange(1, labels.max() + 1)
    if not np.array_equal(np.unique(labels), classes):
        raise dataset.DataError(f"{labels_file} must hold each label from 1 to {labels.max()}. Get it from {HOMEPAGE}.")
    splits = {
        split: [
            raw_dataset.Item(
                name=f"image_{number:05d}",
                class_name=str(labels[number - 1] - 1),
                image=jpg / f"image_{number:05d}.jpg",
                mask=segmim / f"segmim_{number:05d}.jpg",
            )
            for number in np.sort(numbers)
        ]
        for split, numbers in ids.items()
    }
    class_names = tuple(str(label - 1) for label in classes)
    return raw_dataset.RawDataset(
        class_names, splits, mask_rules.Rule(rule), description=__doc__, homepage=HOMEPAGE, official=True
    )


def _read_mat(path: pathlib.Path, names: Sequence[str]) -> list[np.ndarray]:
    """Arrays of whole numbers, made flat."""
    try:
        return mat_files.read(path, names)
    except ValueError as error:
        raise dataset.DataError(
            f"{path} cannot be read as a MATLAB file with {', '.join(names)} ({error}). Get it again from {HOMEPAGE}."
        ) from error


def is_flower(values: np.ndarray) -> np.ndarray:
    """The published rule, [H, W, 3] to [H, W]: what is left when (0, 0, 254) is subtracted, not below 0.

    A mask of one channel was made binary already, and is cut in the middle.
    """
    if values.ndim == 2:
        return values > 127
    return (values.astype(int) > _BLUE).any(axis=-1)


def is_far_from_blue(values: np.ndarray) -> np.ndarray:
    """The default rule, [H, W, 3] to [H, W]: a colour at more than 60 from (0, 0, 254), 255 being the range of each.

    The masks are JPEG files: around a flower the blue is not exact, and the published rule counts that as flower. A
    mask of one channel was made binary already, and is cut in the middle.
    """
    if values.ndim == 2:
        return values > 127
    return np.square(values.astype(int) - _BLUE).sum(axis=-1) > _TOLERANCE**2
