"""CUB-200-2011: 11,788 photographs of 200 birds, with segmentations and bounding boxes by annotators.

Wah, Branson, Welinder, Perona and Belongie, "The Caltech-UCSD Birds-200-2011 dataset", technical report
CNS-TR-2011-001, California Institute of Technology, 2011. Not for commercial use.

The official files are `CUB_200_2011.tgz` (`images/` and lists in text) and `segmentations.tgz`, whose grey values are
the mean of five annotators' votes: a pixel is foreground where it is above 255 / 2. CUB5 is five of its classes.
"""

from collections.abc import Sequence
import pathlib

from minmax_jax.data import dataset, raw_files
from minmax_jax.data.importing import archives, download, mask_rules, raw_dataset

HOMEPAGE = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
# Each part of the release, and the archive that holds it.
PARTS = {"CUB_200_2011": "CUB_200_2011.tgz", "segmentations": "segmentations.tgz"}
# Sizes and checksums are those that tensorflow_datasets publishes (url_checksums/caltech_birds2011.txt).
FILES = (
    download.File(
        (
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "https://s3.amazonaws.com/fast-ai-imageclas/CUB_200_2011.tgz",
        ),
        size=1150585339,
        sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    ),
    download.File(
        ("https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz",),
        size=39272883,
        sha256="dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
    ),
)


def read_raw(sources: Sequence[str], scratch: pathlib.Path) -> raw_dataset.RawDataset:
    """All images, in the official splits, which have no validation images.

    Args:
        sources: folders with the official files, unpacked or not, or these files themselves.
        scratch: folder to unpack archives to.

    Raises:
        DataError: if a part is missing, or if the lists do not fit each other.
    """
    folder, segmentations = (
        archives.find(sources, part, archive=archive, scratch=scratch, homepage=HOMEPAGE)
        for part, archive in PARTS.items()
    )
    classes = _read_list(folder / "classes.txt", 1)
    images = _read_list(folder / "images.txt", 1)
    columns = {"image_class_labels.txt": 1, "train_test_split.txt": 1, "bounding_boxes.txt": 4}
    labels, is_train, boxes = (_read_list(folder / name, count) for name, count in columns.items())
    for name, rows in zip(columns, (labels, is_train, boxes)):
        if rows.keys() != images.keys():
            raise dataset.DataError(
                f"{folder / name} must name the images of images.txt. Get it again from {HOMEPAGE}."
            )
    splits = {"train": [], "test": []}
    for number, (path,) in images.items():
        (label,) = labels[number]
        if label not in classes:
            raise dataset.DataError(f"image_class_labels.txt gives {path} the label {label}, not in classes.txt.")
        item = raw_dataset.Item(
            name=pathlib.PurePosixPath(path).stem,
            class_name=classes[label][0],
            image=folder / "images" / path,
            mask=segmentations / pathlib.PurePosixPath(path).with_suffix(".png"),
            boxes=(_to_box(number, boxes[number]),),
        )
        splits["train" if is_train[number] == ["1"] else "test"].append(item)
    class_names = tuple(name for (name,) in classes.values())
    return raw_dataset.RawDataset(
        class_names, splits, mask_rules.above(255 / 2), description=__doc__, homepage=HOMEPAGE, official=True
    )


def _read_list(path: pathlib.Path, num_columns: int) -> dict[str, list[str]]:
    """Lines of a number and one or more values, by that number."""
    if not path.is_file():
        raise dataset.DataError(f"{path.name} is missing in {path.parent}. Get the dataset again from {HOMEPAGE}.")
    rows = {}
    for line, text in enumerate(raw_files.read_text(path).splitlines(), start=1):
        number, *values = text.split() or [""]
        if len(values) != num_columns or number in rows:
            raise dataset.DataError(
                f"{path}, line {line}: {text!r} is not a number of its own and {num_columns} value(s)."
            )
        rows[number] = values
    return rows


def _to_box(number: str, values: list[str]) -> tuple[float, float, float, float]:
    """(x, y, width, height) in pixels to (top, left, bottom, right)."""
    try:
        left, top, width, height = map(float, values)
    except ValueError as error:
        raise dataset.DataError(f"bounding_boxes.txt gives image {number} the box {values}: no numbers.") from error
    return top, left, top + height, left + width
