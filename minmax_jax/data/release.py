"""A dataset as it was downloaded: which files it has, and how they become records."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import pathlib
import re
import zipfile

import numpy as np
from PIL import Image
import tqdm

from minmax_jax.data import dataset, mask_rules, pictures

# A path in a folder, or in a ZIP file: both can be read alike.
Path = pathlib.Path | zipfile.Path


@dataclasses.dataclass(frozen=True)
class Item:
    """One image of a release.

    Attributes:
        name: unique in the release; no slash at its ends.
        class_name: what the image shows.
        image: its file.
        mask: the file that tells its foreground, if there is one.
        boxes: around its objects, (top, left, bottom, right) each, in pixels of the image as stored.
    """

    name: str
    class_name: str
    image: Path
    mask: Path | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()


def _read_whole(item: Item, found: "Release") -> Iterator[dict]:
    yield read_record(item, found)


@dataclasses.dataclass(frozen=True)
class Release:
    """What is known of a dataset before its images are read.

    Attributes:
        class_names: of all classes, in the order of their labels.
        splits: the items of each.
        mask_rule: which of their pixels are foreground.
        description: of the dataset.
        homepage: where it comes from.
        read_records: item, release -> the records that the item becomes: one, or its tiles.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[Item]]
    mask_rule: mask_rules.Rule
    description: str
    homepage: str = ""
    read_records: Callable[[Item, "Release"], Iterator[dict]] = _read_whole

    def __iter__(self) -> Iterator[Item]:
        """All items."""
        return (item for items in self.splits.values() for item in items)


def check_name(name: str, *, taken: Sequence[str]) -> None:
    """Refuses names of own datasets that cannot be a folder's, or mean another one.

    Raises:
        DataError: for such a name.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in taken:
        raise dataset.DataError(
            f"--name={name!r} must be a name for your images, of small letters, digits and underscores, and none of"
            f" {', '.join(taken)}."
        )


def class_names_of(splits: dict[str, list[Item]]) -> tuple[str, ...]:
    """All classes of the training images, sorted, numbers by their value.

    Raises:
        DataError: for an empty split, a single class, or an image of a class that has no training image.
    """
    for split, items in splits.items():
        if not items:
            raise dataset.DataError(f"The {split} split has no images.")
    known = {item.class_name for item in splits["train"]}
    for item in (item for items in splits.values() for item in items):
        if item.class_name not in known:
            raise dataset.DataError(f"{item.image}: the class {item.class_name!r} has no training image.")
    if len(known) < 2:
        raise dataset.DataError(f"There is one class, {min(known)!r}; at least two are needed.")
    return tuple(sorted(known, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))


def read_record(item: Item, found: Release) -> dict:
    """Reads the files of an item.

    Args:
        item: of the release.
        found: the release.

    Returns:
        Its record, see `records.features`: the image in the format that it has, the mask as PNG with one bit a pixel.

    Raises:
        DataError: if a file is missing, is no whole image, is too small, or if sizes or boxes do not fit.
    """
    content = read_file(item.image)
    picture = pictures.open_picture(content, str(item.image))
    size = pictures.to_rgb(picture, str(item.image)).shape[:2]
    if min(size) < dataset.LEAST_SIDE:
        raise dataset.DataError(
            f"{item.image} has {size} pixels (height, width); each side needs at least {dataset.LEAST_SIDE}."
        )
    return {
        "image": pictures.compact(content, picture, str(item.image)),
        "mask": _encode_mask(item, picture, size, found.mask_rule) if item.mask else b"",
        "boxes": relative_boxes(item, picture.size, pictures.orientation(picture)).astype(np.float32),
        "label": item.class_name,
        "name": item.name,
        "size": np.array(size, np.int32),
    }


def _encode_mask(item: Item, picture: Image.Image, size: tuple[int, int], rule: mask_rules.Rule) -> bytes:
    stored = pictures.open_picture(read_file(item.mask), str(item.mask))
    mask_rules.refuse_blurred(rule, stored, str(item.mask))
    upright = pictures.upright_mask(stored, tag=pictures.orientation(picture), size=picture.size)
    foreground = rule.is_foreground(pictures.read_values(upright))
    if foreground.shape != size:
        raise dataset.DataError(
            f"{item.mask} has {foreground.shape} pixels (height, width), its image {item.image} {size}."
        )
    return pictures.to_png(foreground)


def read_file(path: Path) -> bytes:
    """Its content.

    Raises:
        DataError: if there is no such file.
    """
    if not path.is_file():
        raise dataset.DataError(f"{path} is missing.")
    return path.read_bytes()


def relative_boxes(item: Item, size: tuple[int, int], tag: int) -> np.ndarray:
    """Boxes [K, 4] as shares of the upright image; what reaches over its border is cut.

    Args:
        item: that has the boxes.
        size: width and height of its image as it is stored.
        tag: the image's orientation.

    Raises:
        DataError: for a box that holds no pixel.
    """
    width, height = size
    boxes = np.array(item.boxes, np.float64).reshape(-1, 4)
    boxes = np.clip(boxes / [height, width, height, width], 0, 1)
    if not (boxes[:, :2] < boxes[:, 2:]).all():
        raise dataset.DataError(
            f"{item.image} of {height}x{width} pixels has the boxes {item.boxes} (top, left,"
            " bottom, right), of which at least one holds no pixel of it."
        )
    return pictures.turn_boxes(boxes, tag)


def check(release: Release) -> None:
    """Reads everything once, with progress.

    Raises:
        DataError: listing every file that cannot be used, and names that stand twice.
    """
    problems, seen = [], set()
    for item in tqdm.tqdm(list(release), desc="Checking images", unit="image"):
        if item.name in seen:
            problems.append(f"{item.image} would be the second image named {item.name!r}.")
        seen.add(item.name)
        try:
            for _ in release.read_records(item, release):
                pass
        except (dataset.DataError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise dataset.DataError(f"{len(problems)} problems:\n  " + "\n  ".join(problems))
