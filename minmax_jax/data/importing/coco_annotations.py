"""COCO files: images, categories, and annotations with polygons, run lengths or boxes."""

import collections
import functools
import logging
import pathlib
from typing import Any

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.data.importing import regions, run_lengths
from minmax_jax.data.importing.annotation_entries import Entry

logger = logging.getLogger(__name__)


def read(content: dict[str, Any], path: pathlib.Path) -> list[Entry]:
    """What a file says of each of its images; one without annotations has an empty mask.

    Raises:
        DataError: if its parts do not fit.
    """
    images = _rows(content, "images", ("id", "file_name"), path)
    annotations = _rows(content, "annotations", ("image_id", "category_id"), path)
    categories = {
        str(row["id"]): str(row.get("name") or row["id"]) for row in _rows(content, "categories", ("id",), path)
    }
    of_image = {str(row["id"]): [] for row in images}
    if len(of_image) < len(images):
        raise dataset.DataError(f"{path} has two images of one id. Export it anew.")
    orphans = 0
    for row in annotations:
        if str(row["category_id"]) not in categories:
            raise dataset.DataError(
                f"{path}: category_id {row['category_id']!r} is not in its categories. Export it anew."
            )
        if str(row["image_id"]) in of_image:
            of_image[str(row["image_id"])].append(row)
        else:
            orphans += 1
    if orphans:
        logger.warning(
            "%d of %d annotations of %s are of images that it does not list.", orphans, len(annotations), path
        )
    # Without any shape, images without annotations have no object, but no mask that could be compared with others.
    only_boxes = not any(row.get("segmentation") for row in annotations) and bool(annotations)
    _log_rare(annotations, only_boxes, path)
    return [
        Entry(
            path,
            names=(str(row["file_name"]),),
            parse=functools.partial(_parse, row, of_image[str(row["id"])], categories, path, only_boxes),
            categories=categories,
        )
        for row in images
    ]


def _rows(content: dict[str, Any], field: str, needed: tuple[str, ...], path: pathlib.Path) -> list[dict[str, Any]]:
    rows = content.get(field, [])
    for row in rows if isinstance(rows, list) else [None]:
        if not isinstance(row, dict) or any(name not in row for name in needed):
            raise dataset.DataError(
                f"{path}: {field} must be a list of objects with {', '.join(needed)}. Export it anew."
            )
    return rows


def _log_rare(annotations: list[dict[str, Any]], only_boxes: bool, path: pathlib.Path) -> None:
    if crowds := sum(bool(row.get("iscrowd")) for row in annotations):
        logger.info("%d regions of %s are marked iscrowd: they are foreground, without a box.", crowds, path)
    without = sum(not row.get("segmentation") for row in annotations)
    if only_boxes:
        logger.info("%s has boxes and no segmentations: its images get boxes and no masks.", path)
    elif without:
        logger.warning(
            "%d of %d annotations of %s have a box and no segmentation: their images get boxes and no mask.",
            *(without, len(annotations), path),
        )


def _parse(
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    categories: dict[str, str],
    path: pathlib.Path,
    only_boxes: bool,
) -> regions.Drawing:
    size = tuple(image[side] for side in ("height", "width")) if image.get("height") and image.get("width") else None
    found, skipped = [], collections.Counter()
    for row in annotations:
        try:
            region, row_size = _to_region(row, categories[str(row["category_id"])])
        except (ValueError, TypeError) as error:
            name = f"annotation {row.get('id', 'without id')} of {image['file_name']!r}"
            raise dataset.DataError(f"{path}: {name} cannot be read ({error}). Correct or delete it.") from error
        size = size or row_size
        if row_size not in (None, size):
            raise dataset.DataError(
                f"{path}: run lengths of {image['file_name']!r} are of {row_size} pixels (height, width), the image of"
                f" {size}. Export it anew."
            )
        if region is None:
            skipped["segmentation without area"] += 1
        else:
            found.append(region)
    return regions.Drawing(tuple(found), size=size, only_boxes=only_boxes, skipped=skipped)


def _to_region(row: dict[str, Any], category: str) -> tuple[regions.Region | None, tuple[int, int] | None]:
    """The region of an annotation, and the size of its run lengths."""
    fields: dict[str, Any] = {"is_crowd": bool(row.get("iscrowd"))}
    if row.get("bbox"):
        left, top, width, height = map(float, row["bbox"])
        if not np.isfinite([left, top, width, height]).all():
            raise ValueError("its bbox is not four finite numbers")
        # A box without area says nothing where there is a shape.
        if (width > 0 and height > 0) or not row.get("segmentation"):
            fields["box"] = (top, left, top + height, left + width)
    segmentation = row.get("segmentation")
    if isinstance(segmentation, dict):
        counts, size = run_lengths.parse(segmentation)
        return regions.from_pixels(category, functools.partial(run_lengths.decode, counts, size), **fields), size
    if segmentation:
        # Some programs write a single polygon without the list around it.
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        rings = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
        return regions.from_polygons(category, [(ring,) for ring in rings], **fields), None
    if "box" not in fields:
        raise ValueError("it has neither segmentation nor bbox")
    return regions.Region(category, **fields), None
