"""The regions of an image as files: polygons for QuPath, annotations for COCO."""

from collections.abc import Iterator
import logging
import pathlib
from typing import NamedTuple

import numpy as np

from minmax_jax.base import strict_json
from minmax_jax.prediction.large import resampling
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.outputs import coco, geojson, outlines, polygons, regions
from minmax_jax.prediction.predicted_images import Predicted

logger = logging.getLogger(__name__)
_MAX_CORNERS = 1 << 21  # of a region's outline: those of larger ones are drawn at a lower resolution


class Found(NamedTuple):
    """The regions of a mask: [h, w] the number of each pixel's, from 1, and the regions."""

    labels: np.ndarray | DiskArray
    regions: list[regions.Region]


def write_geojson(
    path: pathlib.Path,
    answer: Predicted,
    found: Found,
    *,
    classification: str,
    tolerance: float,
    object_type: str | None,
) -> None:
    """Writes the polygons of all regions.

    Args:
        path: of the file, which is compressed if its name ends with ".gz".
        answer: the prediction for the image.
        found: its regions.
        classification: name of the class.
        tolerance: of `polygons.create`, in pixels of the image, or of the mask where those are larger.
        object_type: of `geojson.write`.
    """
    features = _features(answer, found, classification, tolerance)
    count, used = geojson.write(path, features, object_type=object_type)
    if object_type is None and used == geojson.DETECTION:
        logger.info(
            "%s has %d polygons, more than %d: they are written as detections, which QuPath shows faster than"
            " annotations (geojson_type=annotation for the others).",
            *(answer.source.input.path, count, geojson.MAX_ANNOTATIONS),
        )


def _features(answer: Predicted, found: Found, classification: str, tolerance: float) -> Iterator[geojson.Feature]:
    """A feature for each part of each region: parts of one region touch each other at corners."""
    down, across = answer.scale
    for number, region in enumerate(found.regions, 1):
        parts, factor = _outline(found.labels, number, region)
        for part in parts:
            rings = polygons.create(
                part,
                scale=(across * factor, down * factor),
                origin=(across * region.box[1], down * region.box[0]),
                limit=answer.source.size[::-1],
                tolerance=tolerance * max(1.0, factor * min(down, across)),
            )
            area = part.area * factor**2 * down * across
            measurements = {"Area px": area, "Mean score": region.mean_value, "Region": number}
            if answer.source.microns:
                measurements["Area um^2"] = area * answer.source.microns**2
            yield geojson.Feature(rings, classification, measurements)


def _outline(labels: np.ndarray | DiskArray, number: int, region: regions.Region) -> tuple[list[outlines.Part], int]:
    """The parts of a region, and by how much they are reduced so that they fit in memory."""
    factor, minimum, box = 1, 0.5, region.box
    parts = outlines.find(_rows(labels, number, box), max_corners=_MAX_CORNERS)
    while parts is None:
        factor *= 2
        parts = outlines.find(_reduced_rows(labels, number, box, factor, minimum), max_corners=_MAX_CORNERS)
        if parts is not None and minimum and sum(part.area for part in parts) * factor**2 < region.area / 2:
            # Thin lines: what they touch is nearer to them than what they fill.
            minimum, factor, parts = 0.0, 1, None
    return parts, factor


def _rows(
    labels: np.ndarray | DiskArray, number: int, box: tuple[int, int, int, int], multiple: int = 1
) -> Iterator[np.ndarray]:
    """Bands of a region, [n, width of the box] bool; n is a multiple of a number but in the last one."""
    top, left, bottom, right = box
    at_once = max(1, resampling.MAX_PIXELS // (right - left) // multiple) * multiple
    for first in range(top, bottom, at_once):
        yield labels[first : min(first + at_once, bottom), left:right] == number


def _reduced_rows(
    labels: np.ndarray | DiskArray, number: int, box: tuple[int, int, int, int], factor: int, minimum: float
) -> Iterator[np.ndarray]:
    """As `_rows`, squares of pixels of which at least this share, and at least one pixel, is in the region."""
    for rows in _rows(labels, number, box, multiple=factor):
        padded = np.pad(rows, [(0, -side % factor) for side in rows.shape])
        height, width = (side // factor for side in padded.shape)
        share = padded.reshape(height, factor, width, factor).mean(axis=(1, 3))
        yield (share > 0) & (share >= minimum)


def write_annotations(path: pathlib.Path, answer: Predicted, found: Found) -> None:
    """Writes a list of the regions, one after another, in pixels of the image.

    Args:
        path: of the JSON file.
        answer: the prediction for the image.
        found: its regions.
    """
    is_first = True
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, region in enumerate(found.regions, 1):
            encoded = coco.encode(found.labels, number, region.box, size=answer.source.size)
            if encoded["area"] == 0:  # between the pixels of an image with fewer pixels than its mask
                continue
            file.write(("" if is_first else ",\n") + strict_json.dumps(encoded | {"score": region.mean_value}))
            is_first = False
        file.write("]\n")
