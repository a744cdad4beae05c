"""Regions as COCO stores them: run lengths along the columns, zeros first, not compressed."""

from collections.abc import Iterable, Sequence
import json
from typing import IO, Any

import numpy as np


def encode(mask: np.ndarray) -> dict[str, Any]:
    """{"size": [H, W], "counts": run lengths} of a [H, W] bool mask."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[:1].any() else counts}


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
