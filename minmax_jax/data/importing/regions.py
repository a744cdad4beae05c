"""Regions that another program drew on an image: polygons, pixels or boxes, and where they are on the upright image.

Coordinates are pixels from the top left corner of the image, so that the centre of the first pixel is (0.5, 0.5).
"""

import collections
from collections.abc import Callable, Iterable, Mapping
import dataclasses
import pathlib

import numpy as np
from PIL import Image

from minmax_jax.data import dataset, image_files

# (top, left, bottom, right) in pixels; bottom and right are exclusive.
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Region:
    """One object.

    Attributes:
        category: name of what it shows.
        box: around it.
        polygons: rings [N, 2] of (x, y); of one polygon, a ring inside another is a hole. Polygons are united.
        pixels: its mask [H, W] bool, in place of polygons.
        is_crowd: whether it covers several objects that were not separated.
    """

    category: str
    box: Box
    polygons: tuple[tuple[np.ndarray, ...], ...] = ()
    pixels: Callable[[], np.ndarray] | None = None
    is_crowd: bool = False

    @property
    def has_shape(self) -> bool:
        """Whether more than a box is known of it."""
        return bool(self.polygons) or self.pixels is not None


@dataclasses.dataclass(frozen=True)
class Drawing:
    """The regions of one image.

    Attributes:
        regions: all, or of the foreground.
        ignored: those that are left out of the evaluation.
        size: height and width of the image that they were drawn on, where the file has it.
        is_upright: whether the program turned the image by its EXIF orientation before it was drawn on.
        only_boxes: whether the file's format has no shapes: what is outside the boxes is known, not what is inside.
        skipped: number of shapes without area, by type.
    """

    regions: tuple[Region, ...]
    ignored: tuple[Region, ...] = ()
    size: tuple[int, int] | None = None
    is_upright: bool = False
    only_boxes: bool = False
    skipped: Mapping[str, int] = dataclasses.field(default_factory=collections.Counter)

    @property
    def has_mask(self) -> bool:
        """Whether the foreground is known: without a region, it is empty."""
        return not self.only_boxes and all(region.has_shape for region in self.regions + self.ignored)

    @property
    def boxes(self) -> np.ndarray:
        """[K, 4] around the objects (top, left, bottom, right)."""
        return np.array([region.box for region in self.regions if not region.is_crowd], np.float64).reshape(-1, 4)


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What a file says of one image.

    Attributes:
        path: of the file.
        parse: reads its regions.
        foreground: categories that are foreground.
        ignored: categories that are left out of the evaluation, also where they cover foreground.
    """

    path: pathlib.Path
    parse: Callable[[], Drawing]
    foreground: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()

    def read(self, image: object, size: tuple[int, int], tag: int) -> Drawing:
        """The regions of the chosen categories, in pixels of the upright image.

        Args:
            image: its path, for messages.
            size: width and height of the image as it is stored.
            tag: its EXIF orientation.

        Raises:
            DataError: if the file is damaged, or is about an image of another size.
        """
        drawing = self.parse()
        chosen = dataclasses.replace(
            drawing,
            regions=tuple(region for region in drawing.regions if region.category in self.foreground),
            ignored=tuple(region for region in drawing.regions if region.category in self.ignored),
        )
        return _turn(chosen, size, tag, f"{self.path}: {image}")


def from_polygons(category: str, polygons: Iterable[Iterable[np.ndarray]], **fields) -> Region | None:
    """A region of polygons, each of rings [N, 2]; None if they have no area.

    Args:
        category: the name of its class.
        polygons: each of rings [N, 2] of (x, y) in pixels; rings of fewer than three points are left out.
        **fields: further fields of `Region`.

    Raises:
        ValueError: for coordinates that are not finite numbers.
    """
    polygons = tuple(tuple(ring for ring in rings if len(ring) > 2) for rings in polygons)
    points = [ring for rings in polygons for ring in rings]
    if not points:
        return None
    points = np.concatenate(points)
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not a finite number")
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    if left == right or top == bottom:
        return None
    return Region(category, **{"box": (top, left, bottom, right), "polygons": polygons} | fields)


def from_pixels(category: str, pixels: Callable[[], np.ndarray], **fields) -> Region | None:
    """A region of a mask [H, W] bool; None if that is empty.

    Args:
        category: the name of its class.
        pixels: gives the mask; called again wherever the region is drawn.
        **fields: further fields of `Region`.
    """
    rows, columns = (np.flatnonzero(pixels().any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    box = (float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1))
    return Region(category, **{"box": box, "pixels": pixels} | fields)


def _turn(drawing: Drawing, size: tuple[int, int], tag: int, where: str) -> Drawing:
    """The drawing in pixels of the upright image, checked against its size."""
    stored = size[::-1]
    upright = size if tag >= 5 else stored
    if drawing.size is not None and drawing.size not in (stored, upright):
        raise dataset.DataError(
            f"{where} has {upright} pixels (height, width), and {drawing.size} in the annotation. Give the image that"
            " was annotated, or export the annotation anew."
        )
    is_ambiguous = drawing.size is None or stored == upright
    is_stored = not drawing.is_upright if is_ambiguous else drawing.size == stored
    _refuse_outside(drawing, stored if is_stored else upright, where)
    if not is_stored or tag == 1:
        return drawing
    return dataclasses.replace(
        drawing,
        regions=tuple(_turn_region(region, stored, upright, tag) for region in drawing.regions),
        ignored=tuple(_turn_region(region, stored, upright, tag) for region in drawing.ignored),
    )


def _refuse_outside(drawing: Drawing, size: tuple[int, int], where: str) -> None:
    """Raises DataError if regions are elsewhere, or so small that the coordinates are not pixels."""
    boxes = np.array([region.box for region in drawing.regions + drawing.ignored], np.float64).reshape(-1, 4)
    if not len(boxes):
        return
    upper, lower, size = boxes[:, :2], boxes[:, 2:], np.array(size)
    outside = ((lower <= 0) | (upper >= size) | (lower > 2 * size) | (upper < -size)).any(axis=1)
    advice = "Coordinates must be pixels of the full image, from its top left corner, not degrees, microns or shares."
    if outside.any():
        example = np.round(boxes[outside][0], 2).tolist()
        raise dataset.DataError(
            f"{where} has {tuple(size.tolist())} pixels (height, width), and {outside.sum()} of {len(boxes)} regions"
            f" are not on it, such as {example} (top, left, bottom, right). {advice} Correct or delete them."
        )
    if (lower - upper < 1).all():
        raise dataset.DataError(f"{where}: each of its {len(boxes)} regions is smaller than a pixel. {advice}")


def _turn_region(region: Region, stored: tuple[int, int], upright: tuple[int, int], tag: int) -> Region:
    def turn_ring(ring: np.ndarray) -> np.ndarray:
        shares = ring[:, ::-1] / stored
        return (image_files.turn_boxes(np.hstack([shares, shares]), tag)[:, :2] * upright)[:, ::-1]

    def turn_pixels() -> np.ndarray:
        picture = Image.fromarray(region.pixels())
        return np.asarray(image_files.upright_mask(picture, tag=tag, size=stored[::-1]))

    box = image_files.turn_boxes(np.array([region.box]) / (stored * 2), tag)[0] * (upright * 2)
    return dataclasses.replace(
        region,
        box=tuple(box.tolist()),
        polygons=tuple(tuple(turn_ring(ring) for ring in rings) for rings in region.polygons),
        pixels=turn_pixels if region.pixels else None,
    )
