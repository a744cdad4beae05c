"""Regions as COCO stores them: run lengths along the columns, zeros first, in the compressed text of pycocotools."""

from collections.abc import Iterable, Iterator, Sequence
import importlib.metadata
import math
from typing import IO, Any

import numpy as np

from minmax_jax.base import strict_json
from minmax_jax.prediction.large.disk_arrays import DiskArray

_MAX_PIXELS = 1 << 22  # that are encoded at once
_MAX_COMPRESSED = 1 << 32  # pixels of an image: pycocotools counts with 32 bits


def encode(
    labels: np.ndarray | DiskArray,
    number: int,
    box: tuple[int, int, int, int],
    *,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """A region as an annotation has it.

    Args:
        labels: [h, w] number of each pixel's region.
        number: of the region, which has a pixel.
        box: (top, left, bottom, right) of the region, bottom and right exclusive: only there it is looked for.
        size: (H, W) of the image, if it is another than that of the labels; each pixel has the nearest label.

    Returns:
        "segmentation": {"size": [H, W], "counts": run lengths as text}, as a list for images of 2^32 or more pixels;
        the "area" and "bbox" [left, top, width, height] of its pixels in the image.
    """
    height, width = size or labels.shape
    runs = np.concatenate([np.zeros((0, 2), int), *_runs(labels, number, box, (height, width))])
    is_apart = runs[1:, 0] != runs[:-1, 1]  # the last run of some columns may go on in the next
    starts = np.concatenate([runs[:1, 0], runs[1:, 0][is_apart]])
    ends = np.concatenate([runs[:-1, 1][is_apart], runs[-1:, 1]])
    counts = np.diff(np.stack([starts, ends], axis=1).ravel(), prepend=0, append=height * width).tolist()
    return {
        "segmentation": {"size": [height, width], "counts": compress(counts, (height, width))},
        "area": int((ends - starts).sum()),
        "bbox": _box(starts, ends, height),
    }


def compress(counts: Sequence[int], size: tuple[int, int]) -> str | list[int]:
    """Run lengths that begin with zeros as text; as they are for an image that pycocotools cannot count."""
    from pycocotools import mask as coco_mask

    counts = list(counts) if counts[-1] else list(counts[:-1])
    if math.prod(size) >= _MAX_COMPRESSED:
        return counts
    return coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"].decode("ascii")


def _box(starts: np.ndarray, ends: np.ndarray, height: int) -> list[int]:
    """[left, top, width, height] of runs along columns of this height."""
    if not len(starts):
        return [0, 0, 0, 0]
    left, right = int(starts[0] // height), int((ends[-1] - 1) // height) + 1
    goes_on = starts // height != (ends - 1) // height  # in the next column: to the last row and from the first on
    top = 0 if goes_on.any() else int((starts % height).min())
    bottom = height if goes_on.any() else int(((ends - 1) % height).max()) + 1
    return [left, top, right - left, bottom - top]


def _runs(
    labels: np.ndarray | DiskArray, number: int, box: tuple[int, int, int, int], size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yields [n, 2] first pixels and ends of runs, counted along the columns, for some columns at a time."""
    rows = _nearest(box[0], box[2], labels.shape[0], size[0])
    columns = _nearest(box[1], box[3], labels.shape[1], size[1])
    at_once = max(1, _MAX_PIXELS // max(len(rows), box[2] - box[0]))
    for first in range(0, len(columns), at_once):
        new, old = columns[first : first + at_once].T
        there = labels[box[0] : box[2], old[0] : old[-1] + 1]
        x, y = np.nonzero(there[np.ix_(rows[:, 1] - box[0], old - old[0])].T == number)
        places = new[x] * size[0] + rows[y, 0]
        is_start = np.diff(places, prepend=-2) > 1
        yield np.stack([places[is_start], places[np.roll(is_start, -1)] + 1], axis=1)


def _nearest(start: int, end: int, length: int, new_length: int) -> np.ndarray:
    """[n, 2] the new places whose nearest old place is from `start` to `end`, and that old place."""
    new = np.arange(int(start * new_length / length), min(new_length, math.ceil(end * new_length / length) + 1))
    old = ((new + 0.5) * length / new_length).astype(int)
    inside = (old >= start) & (old < end)
    return np.stack([new, old], axis=1)[inside]


def _version() -> str:
    try:
        return importlib.metadata.version("minmax_jax")
    except importlib.metadata.PackageNotFoundError:  # run from a folder that is not installed
        return ""


def write(
    file: IO[str],
    images: Iterable[tuple[dict[str, Any], Sequence[dict[str, Any]]]],
    class_names: Sequence[str],
    *,
    folder: str,
) -> None:
    """Writes a COCO file, a line for each annotation; no more than one image's are in memory.

    Args:
        file: opened for writing.
        images: rows with "file_name", "height", "width" and "class", and the regions of each as `encode` gives them,
            with a "score".
        class_names: of the categories.
        folder: below which the files are.
    """
    info = {
        "description": "Regions predicted by minmax_jax. file_name is relative to the folder that `folder` names.",
        "version": _version(),
        "folder": folder,
    }
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(class_names, 1)]
    file.write(f'{{"info": {strict_json.dumps(info)},\n"licenses": [],\n')
    file.write(f'"categories": {strict_json.dumps(categories)},\n"annotations": [')
    described, count = [], 0
    for image_id, (row, regions) in enumerate(images, 1):
        described.append({"id": image_id} | {name: row[name] for name in ("file_name", "height", "width")})
        for region in regions:
            of_image = {"image_id": image_id, "category_id": class_names.index(row["class"]) + 1, "iscrowd": 0}
            annotation = {"id": count + 1} | of_image | region
            file.write((",\n" if count else "\n") + strict_json.dumps(annotation, separators=(",", ":")))
            count += 1
    file.write(f'],\n"images": {strict_json.dumps(described)}}}\n')
