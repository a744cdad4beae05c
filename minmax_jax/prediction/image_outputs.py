"""The files of one image: mask, overlay, soft mask, polygons, annotations; and its row of the tables."""

from collections.abc import Iterator, Sequence
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from minmax_jax.evaluation import trust
from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.prediction import banded_regions, coco, geojson, outlines, overlays, png, regions, resampling
from minmax_jax.prediction.disk_arrays import DiskArray
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.predicted_images import Predicted

_WIDTH = 2  # of outlines on a reduced copy of an image, whose objects are small
_MOST_PIXELS = 1 << 24  # of a region's box: larger ones are outlined at a lower resolution


class _Found(NamedTuple):
    """The regions of a mask: [h, w] the number of each pixel's, from 1, and the regions."""

    labels: np.ndarray | DiskArray
    regions: list[regions.Region]


def write(
    output: pathlib.Path,
    answer: Predicted,
    options: Options,
    *,
    class_names: Sequence[str],
    background_classes: Sequence[int] = (),
    of_model: Sequence[str],
    scratch: pathlib.Path,
) -> dict[str, Any]:
    """Writes the files of an image, and returns its row.

    Args:
        output: folder of the prediction.
        answer: for the image.
        options: what is written.
        class_names: of the C classes.
        background_classes: those without a region.
        of_model: flags of all images.
        scratch: folder for what does not fit in memory.
    """
    prediction, stem = answer.prediction, answer.source.input.stem
    name = class_names[prediction.predicted]
    found = _find_regions(answer, options, scratch)
    share = _write_mask(output / f"masks/{stem}.png", answer, options.threshold)
    width = _WIDTH if isinstance(answer.mask, DiskArray) else None
    overlay = overlays.draw(answer.image, prediction.mask, threshold=options.threshold, width=width)
    overlay.save(output / f"overlays/{stem}.png")
    if options.soft_masks:
        _write_soft_mask(_open(output, f"soft_masks/{stem}.npy"), answer)
    if options.geojson:
        with _open(output, f"geojson/{stem}.geojson").open("w", encoding="utf-8") as file:
            geojson.write(file, _features(answer, found, options, name))
    if options.coco:
        with _open(output, f"coco/{stem}.json").open("w", encoding="utf-8") as file:
            _write_annotations(file, answer, found)
    return {
        "path": str(answer.source.input.path),
        "stem": stem,
        "mask": f"masks/{stem}.png",
        "height": answer.source.size[0],
        "width": answer.source.size[1],
        "microns_per_pixel": answer.source.microns,
        "rescaling": answer.source.rescaling,
        "num_tiles": answer.num_tiles,
        "class": name,
        "probability": float(prediction.probabilities[prediction.predicted]),
        "probabilities": dict(zip(class_names, map(float, prediction.probabilities))),
        **_entropies(prediction, background_classes),
        "foreground_share": share,
        "num_instances": len(found.regions),
        "threshold": options.threshold,
        "flags": [
            *trust.find_flags(prediction, threshold=options.threshold, background_classes=background_classes),
            *answer.source.flags,
            *of_model,
        ],
    }


def _entropies(prediction: ImagePrediction, background_classes: Sequence[int]) -> dict[str, float | None]:
    """Those of methods that have them; that of the background is None for a class without a region."""
    found = {name: value for name, value in prediction.scores.items() if name.endswith("entropy")}
    is_known = "background_entropy" not in found or prediction.predicted not in background_classes
    return found if is_known else found | {"background_entropy": None}


def _open(output: pathlib.Path, name: str) -> pathlib.Path:
    path = output / name
    path.parent.mkdir(exist_ok=True)
    return path


def _scale(answer: Predicted) -> tuple[float, float]:
    """Pixels of the image in one of the mask, down and across."""
    return answer.source.size[0] / answer.mask.shape[0], answer.source.size[1] / answer.mask.shape[1]


def _find_regions(answer: Predicted, options: Options, scratch: pathlib.Path) -> _Found:
    mask, least_area = answer.mask, max(1, math.ceil(options.least_area / math.prod(_scale(answer))))
    if isinstance(mask, np.ndarray):
        return _Found(*regions.find(mask, threshold=options.threshold, least_area=least_area))
    labels = DiskArray(scratch / "labels", mask.shape, np.int32)
    found = banded_regions.find(mask, labels, threshold=options.threshold, least_area=least_area)
    return _Found(labels, found)


def _write_mask(path: pathlib.Path, answer: Predicted, threshold: float) -> float:
    """Writes the mask at the size of the image, and returns the share of its foreground."""
    count = 0

    def bands() -> Iterator[np.ndarray]:
        nonlocal count
        for rows in resampling.resample(answer.mask, answer.source.size):
            foreground = rows >= threshold
            count += np.count_nonzero(foreground)
            yield 255 * foreground.astype(np.uint8)

    png.write(path, answer.source.size, bands())
    return count / math.prod(answer.source.size)


def _write_soft_mask(path: pathlib.Path, answer: Predicted) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": tuple(map(int, answer.source.size))}
        )
        for rows in resampling.resample(answer.mask, answer.source.size):
            file.write(rows.astype("<f2").tobytes())


def _cut(
    answer: Predicted, found: _Found, number: int, region: regions.Region, threshold: float
) -> tuple[np.ndarray, tuple[int, int], int]:
    """The soft mask of a region without the others in its box, its place (left, top), and by how much it is reduced."""
    top, left, bottom, right = region.box
    top, left = max(top - 1, 0), max(left - 1, 0)
    columns = slice(left, right + 1)
    factor = math.ceil(math.sqrt((bottom + 1 - top) * (right + 1 - left) / _MOST_PIXELS))
    rows_at_once = max(factor, resampling.MOST_PIXELS // (right + 1 - left) // factor * factor)
    parts = []
    for first in range(top, min(bottom + 1, answer.mask.shape[0]), rows_at_once):
        rows = slice(first, min(first + rows_at_once, bottom + 1))
        part, labels = answer.mask[rows, columns], found.labels[rows, columns]
        part = np.where((labels != number) & (part >= threshold), 0, part)
        parts.append(_reduce(part, factor) if factor > 1 else part)
    return np.concatenate(parts), (left, top), factor


def _reduce(part: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares; the last ones are filled up with the values at the border."""
    padded = np.pad(part, [(0, -side % factor) for side in part.shape], mode="edge")
    height, width = (side // factor for side in padded.shape)
    return padded.reshape(height, factor, width, factor).mean(axis=(1, 3))


def _features(answer: Predicted, found: _Found, options: Options, name: str) -> Iterator[dict[str, Any]]:
    """The polygons of each region, which may touch itself at corners and then has several."""
    down, across = _scale(answer)
    for number, region in enumerate(found.regions, 1):
        alone, place, factor = _cut(answer, found, number, region, options.threshold)
        for polygon in outlines.find(
            alone,
            threshold=options.threshold,
            least_area=options.least_area / (down * across * factor**2),
            tolerance=options.tolerance / (min(down, across) * factor),
        ):
            polygon = [
                np.minimum((ring * factor + place) * (across, down), answer.source.size[::-1]) for ring in polygon
            ]
            area = outlines.polygon_area(polygon)
            measurements = {"Area px": area, "Mean score": region.score}
            if answer.source.microns:
                measurements["Area um^2"] = area * answer.source.microns**2
            yield geojson.feature(polygon, classification=name, measurements=measurements)


def _write_annotations(file, answer: Predicted, found: _Found) -> None:
    """The regions as a list, one after another, in pixels of the image."""
    down, across = _scale(answer)
    for number, region in enumerate(found.regions, 1):
        box = [round(side * scale) for side, scale in zip(region.box, (down, across) * 2)]
        described = region._asdict() | {
            "box": box,
            "area": round(region.area * down * across),
            "segmentation": coco.encode(found.labels, number, region.box, size=answer.source.size),
        }
        file.write(("[" if number == 1 else ",\n") + json.dumps(described))
    file.write("]" if found.regions else "[]")
