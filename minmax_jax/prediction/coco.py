"""Regions as COCO stores them: run lengths along the columns, zeros first, not compressed."""

from collections.abc import Iterable, Sequence
import json
from typing import IO, Any

import numpy as np


def encode(labels: np.ndarray, number: int, box: tuple[int, int, int, int]) -> dict[str, Any]:
    """{"size": [H, W], "counts": run lengths} of a region.

    Args:
        labels: [H, W] number of each pixel's region.
        number: of the region, which has a pixel.
        box: (top, left, bottom, right) of the region, bottom and right exclusive: only there it is looked for.
    """
    top, left, bottom, right = box
    x, y = np.nonzero(labels[top:bottom, left:right].T == number)  # column by column
    places = (x + left) * labels.shape[0] + y + top
    is_start = np.diff(places, prepend=-2) > 1
    starts, ends = places[is_start], places[np.roll(is_start, -1)] + 1
    changes = np.column_stack([starts, ends]).ravel()
    counts = np.diff(changes, prepend=0, append=labels.size).tolist()
    return {"size": list(labels.shape), "counts": counts if counts[-1] else counts[:-1]}


def write(
    file: IO[str], images: Iterable[tuple[dict[str, Any], Sequence[dict[str, Any]]]], class_names: Sequence[str]
) -> None:
    """Writes a COCO file, a line for each annotation; no more than one image's are in memory.

    Args:
        file: opened for writing.
        images: rows with "path", "height", "width" and "class", and the regions of each with "box", "area", "score"
            and "segmentation".
        class_names: of the categories.
    """
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, 1)]
    file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
    described, count = [], 0
    for image_id, (row, regions) in enumerate(images, 1):
        size = {name: row[name] for name in ("height", "width")}
        described.append({"id": image_id, "file_name": row["path"], **size})
        for region in regions:
            top, left, bottom, right = region["box"]
            annotation = {
                "id": count + 1,
                "image_id": image_id,
                "category_id": class_names.index(row["class"]) + 1,
                "segmentation": region["segmentation"],
                "area": region["area"],
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
                "score": region["score"],
            }
            file.write((",\n" if count else "\n") + json.dumps(annotation, separators=(",", ":")))
            count += 1
    file.write(f'],\n"images": {json.dumps(described)}}}\n')
