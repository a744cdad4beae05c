"""JSON of labelme: one file an image, with shapes and the size of the image as labelme shows it."""

import base64
import collections
import functools
import math
import pathlib
from typing import Any

import numpy as np

from minmax_jax.data import dataset, image_files
from minmax_jax.data.importing import regions

_CIRCLE_POINTS = 128


def is_labelme(content: Any) -> bool:
    """Whether JSON is a file of labelme."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def image_name(content: dict[str, Any]) -> str:
    """The path of the image, as the file has it."""
    return str(content.get("imagePath") or "")


def parse(content: dict[str, Any], path: pathlib.Path) -> regions.Drawing:
    """Its polygons, rectangles, circles and masks, a region each. labelme turns an image by EXIF when it opens it.

    Raises:
        DataError: for a shape that cannot be read.
    """
    size = (content.get("imageHeight"), content.get("imageWidth"))
    size = size if all(isinstance(side, int) and side > 0 for side in size) else None
    found, skipped = [], collections.Counter()
    for number, shape in enumerate(content["shapes"], 1):
        try:
            region = _to_region(shape, size)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise dataset.DataError(
                f"{path}: shape {number} cannot be read ({error}). Correct or delete it."
            ) from error
        if region is None:
            skipped[shape.get("shape_type") or "polygon"] += 1
        else:
            found.append(region)
    return regions.Drawing(tuple(found), size=size, is_upright=True, skipped=skipped)


def _to_region(shape: dict[str, Any], size: tuple[int, int] | None) -> regions.Region | None:
    """The region of a shape; None if it has no area."""
    kind, category = shape.get("shape_type") or "polygon", str(shape["label"])
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not a finite number")
    if kind == "mask":
        return regions.from_pixels(category, functools.partial(_read_mask, shape["mask"], points, size))
    if kind == "polygon":
        return regions.from_polygons(category, [[points]])
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return regions.from_polygons(
            category, [[np.array([(left, top), (right, top), (right, bottom), (left, bottom)])]]
        )
    if kind == "circle":
        centre, border = points
        angles = np.linspace(0, 2 * math.pi, _CIRCLE_POINTS, endpoint=False)
        ring = centre + math.dist(centre, border) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return regions.from_polygons(category, [[ring]])
    if kind in ("point", "points", "line", "linestrip"):
        return None
    raise ValueError(f"its shape_type is {kind!r}")


def _read_mask(encoded: str, points: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """A mask [H, W] bool: base64 of a PNG that covers the box of two points, both inclusive."""
    if size is None:
        raise ValueError("a mask needs imageHeight and imageWidth")
    picture = image_files.open_picture(base64.b64decode(encoded), "its mask")
    part = np.asarray(picture.convert("L")) > 0
    left, top = np.round(points.min(axis=0)).astype(int).tolist()
    pixels = np.zeros(size, bool)
    window = pixels[max(top, 0) : max(top + part.shape[0], 0), max(left, 0) : max(left + part.shape[1], 0)]
    part = part[max(-top, 0) :, max(-left, 0) :]
    window[...] = part[: window.shape[0], : window.shape[1]]
    return pixels
