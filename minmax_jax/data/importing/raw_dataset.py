"""A dataset as downloaded: its files, and how they become records."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import pathlib
import re
from typing import Any

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset, image_files, image_reading, raw_files, readings
from minmax_jax.data.importing import class_cells, mask_rules, problems, region_masks, regions


@dataclasses.dataclass(frozen=True)
class Item:
    """One image of a raw dataset.

    Attributes:
        name: unique in the dataset; no slash at its ends.
        class_name: what the image shows.
        image: its file.
        mask: the file with its foreground, if there is one.
        boxes: around its objects, (top, left, bottom, right) each, in pixels of the image as stored.
        patient: whom it is of, "" where that is not known.
        annotation: what another program drew on it, in place of mask and boxes.
    """

    name: str
    class_name: str
    image: raw_files.Path
    mask: raw_files.Path | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    patient: str = ""
    annotation: regions.Annotation | None = None


def _read_whole(item: Item, raw: "RawDataset") -> Iterator[dict]:
    yield read_record(item, raw)


@dataclasses.dataclass(frozen=True)
class RawDataset:
    """A dataset before its images are read.

    Attributes:
        class_names: of all classes, in the order of their labels.
        splits: the items of each.
        mask_rule: which of their pixels are foreground.
        description: of the dataset.
        homepage: where it comes from.
        read_records: (item, raw dataset) -> the records that the item becomes: one, or its tiles.
        bad: images of its lists that are in no split, for what is wrong there.
        official: whether its splits are published; they are then kept even where they share images.
        reading: how the values of image files become 8 bits.
        microns_per_pixel: of its records' images; 0 where it is unknown, or where they differ.
        background_classes: names of the classes without a region: no image of theirs may have a foreground or a box.
        images_per_chunk: that one process reads in a row; one, where it becomes many records.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[Item]]
    mask_rule: mask_rules.Rule
    description: str
    homepage: str = ""
    read_records: Callable[[Item, "RawDataset"], Iterator[dict]] = _read_whole
    bad: tuple[problems.Problem, ...] = ()
    official: bool = False
    reading: readings.Reading = readings.AS_STORED
    microns_per_pixel: float = 0.0
    background_classes: tuple[str, ...] = ()
    images_per_chunk: int = 32

    def __iter__(self) -> Iterator[Item]:
        """All items."""
        return (item for items in self.splits.values() for item in items)


def num_bytes(raw: RawDataset) -> int:
    """Size of its image files, about what its records need; files in archives are not counted."""
    return sum(
        item.image.stat().st_size for item in raw if isinstance(item.image, pathlib.Path) and item.image.exists()
    )


def check_name(name: str, *, taken: Sequence[str]) -> None:
    """Refuses names of own datasets that cannot be a folder's, or mean another one.

    Raises:
        DataError: for such a name.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in taken:
        raise OptionError(
            f"name={name!r} must be a name of lower-case letters, digits and underscores, and none of"
            f" {', '.join(taken)}."
        )


def of_own_images(
    splits: dict[str, list[Item]],
    bad: Sequence[problems.Problem] = (),
    *,
    mask_rule: mask_rules.Rule,
    description: str,
) -> RawDataset:
    """A raw dataset with the classes of its training images, sorted, numbers by their value.

    Args:
        splits: the items of each.
        bad: images that are in no split, for what is wrong with them.
        mask_rule: which of their pixels are foreground.
        description: of the dataset.

    Raises:
        DataError: for an empty split, a single class, a class whose name cannot be stored or lists several classes.
    """
    reasons = f" {problems.listing(bad)}" if bad else ""
    for split, items in splits.items():
        if not items:
            raise dataset.DataError(f"The {split} split has no images.{reasons}")
    known = {item.class_name for item in splits["train"]}
    for name in known:
        if not problems.is_utf8(name) or name.strip() != name or name.splitlines() != [name]:
            raise dataset.DataError(
                f"The class '{problems.printable(name)}' has a name that is not UTF-8, or with a line break, or a space"
                " at its end. Rename it."
            )
    everywhere = {item.class_name for items in splits.values() for item in items}
    for name in sorted(everywhere):
        if reason := class_cells.explain(name, everywhere):
            raise dataset.DataError(reason)
    class_cells.warn(everywhere)
    if len(known) < 2:
        raise dataset.DataError(f"There is one class, {min(known)!r}; at least two are needed.{reasons}")
    class_names = sorted(known, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    return RawDataset(tuple(class_names), splits, mask_rule, problems.printable(description), bad=tuple(bad))


def read_record(item: Item, raw: RawDataset) -> dict:
    """Reads the files of an item.

    Args:
        item: of the dataset.
        raw: the dataset.

    Returns:
        Its record, see `record_files.features`: the image in the format that it has, the mask as PNG with one bit a
        pixel, the numbers of its objects as PNG with 8 or 16 bits. What is not stored: "lossy", what of the image file
        is not read; "foreground", the share of the mask's pixels, None without a mask; and "num_objects".

    Raises:
        DataError: if a file is missing, is not a complete image, is too small, or if sizes or boxes do not fit.
    """
    image = image_reading.read(raw_files.read_file(item.image), str(item.image), raw.reading)
    size = image.pixels.shape[:2]
    if min(size) < dataset.MIN_SIDE:
        raise dataset.DataError(
            f"{item.image} has {size} pixels (height, width); each side needs at least {dataset.MIN_SIDE}."
        )
    drawing = item.annotation and item.annotation.read(item.image, image.stored_size, image.orientation)
    return {
        "image": image.encoded,
        **(_encode_mask(item, image, raw.mask_rule) if item.mask else encode_masks(None)),
        **(_encode_drawing(item, drawing, size, raw.mask_rule) if drawing and drawing.has_mask else {}),
        "boxes": relative_boxes(item, image.stored_size, image.orientation, drawing=drawing).astype(np.float32),
        "label": item.class_name,
        "name": item.name,
        "size": np.array(size, np.int32),
        "patient": item.patient,
        "lossy": image.lossy,
    }


def encode_masks(mask: np.ndarray | None, objects: np.ndarray | None = None) -> dict[str, Any]:
    """What a record says of the foreground, "mask" and "foreground", and of its objects, "instances" and "num_objects".

    Args:
        mask: [H, W] bool, or uint8 where pixels are ignored; None where it is not known.
        objects: [H, W] the number of each pixel's object, 0 of none; None where they are not numbered.
    """
    num_objects = 0 if objects is None else int(objects.max())
    return {
        "mask": b"" if mask is None else image_files.to_png(mask),
        "instances": b"" if objects is None else image_files.to_png(objects.astype(np.min_scalar_type(num_objects))),
        "foreground": None if mask is None else float((mask == 1).mean()),
        "num_objects": num_objects,
    }


def _encode_mask(item: Item, image: image_reading.ImageFile, rule: mask_rules.Rule) -> dict[str, Any]:
    stored = image_files.open_picture(raw_files.read_file(item.mask), str(item.mask))
    mask_rules.refuse_blurred(rule, stored, str(item.mask))
    upright, size = (
        image_files.upright_mask(stored, tag=image.orientation, size=image.stored_size),
        image.pixels.shape[:2],
    )
    try:
        foreground = rule(upright)
        objects = rule.number_objects(upright) if rule.numbers_objects else None
    except dataset.DataError as error:
        raise dataset.DataError(f"{item.mask}: {error}") from error
    if foreground.shape != size:
        raise dataset.DataError(
            f"{item.mask} has {foreground.shape} pixels (height, width), its image {item.image} {size}."
        )
    return encode_masks(foreground, objects)


def _encode_drawing(
    item: Item, drawing: regions.Drawing, size: tuple[int, int], rule: mask_rules.Rule
) -> dict[str, Any]:
    """As `_encode_mask`, of the regions that another program drew."""
    try:
        objects = region_masks.number_objects(drawing, size) if rule.numbers_objects else None
    except dataset.DataError as error:
        raise dataset.DataError(f"{item.annotation.path}: {item.image}: {error}") from error
    return encode_masks(region_masks.draw(drawing, (0, 0, *size), size), objects)


def relative_boxes(
    item: Item, size: tuple[int, int], tag: int, *, drawing: regions.Drawing | None = None
) -> np.ndarray:
    """Boxes [K, 4] as shares of the upright image; what reaches over its border is cut.

    Args:
        item: that has the boxes.
        size: width and height of its image as it is stored.
        tag: the image's orientation.
        drawing: what its annotation says, whose boxes are upright.

    Raises:
        DataError: for a box that holds no pixel.
    """
    if drawing is None and not item.boxes:
        return np.zeros((0, 4))
    width, height = size if drawing is None or tag < 5 else size[::-1]
    boxes = np.array(item.boxes, np.float64).reshape(-1, 4) if drawing is None else drawing.boxes
    boxes = np.clip(boxes / [height, width, height, width], 0, 1)
    if not (boxes[:, :2] < boxes[:, 2:]).all():
        raise dataset.DataError(
            f"{item.image} of {height}x{width} pixels has the boxes {item.boxes or drawing.boxes.tolist()} (top, left,"
            " bottom, right), at least one of which contains no pixel of it."
        )
    return image_files.turn_boxes(boxes, tag) if drawing is None else boxes
