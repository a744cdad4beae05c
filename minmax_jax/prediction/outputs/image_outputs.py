"""The files of one image: mask, overlay, soft mask, polygons, annotations; and its row of the tables."""

from collections.abc import Iterator, Mapping, Sequence
import math
import pathlib
from typing import Any

import numpy as np

from minmax_jax.data import pixel_size
from minmax_jax.evaluation import image_predictions, trust
from minmax_jax.method import NO_SCORES, Score
from minmax_jax.prediction.large import banded_regions, resampling
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.outputs import ome_tiff, overlays, png, region_files, regions
from minmax_jax.prediction.predicted_images import Predicted

_WIDTH = 2  # of outlines on a reduced copy of an image, whose objects are small
_OVERLAY_LEVEL = 3  # of the PNG: photographs of 256 pixels are 2 % larger than at 6, and written in half of the time


def files(stem: str, options: Options) -> dict[str, str]:
    """The files of an image, by what they are: paths below the folder of the prediction."""
    ending = "geojson.gz" if options.geojson == "gz" else "geojson"
    of_soft_mask = "ome.tif" if options.soft_masks == "ome-tiff" else "npy"
    return (
        {"mask": f"masks/{stem}.png", "overlay": f"overlays/{stem}.png"}
        | ({"soft_mask": f"soft_masks/{stem}.{of_soft_mask}"} if options.soft_masks else {})
        | ({"geojson": f"geojson/{stem}.{ending}"} if options.geojson else {})
        | ({"coco": f"coco/{stem}.json"} if options.coco else {})
    )


def max_bytes(answer: Predicted, options: Options) -> int:
    """What the files of an image take at most, without polygons and annotations: pictures are compressed."""
    pixels = math.prod(answer.source.size)
    of_soft_mask = {False: 0, True: 2 * pixels, "ome-tiff": 4 * math.prod(answer.mask.shape) // 3}
    return pixels + 3 * math.prod(answer.image.shape[:2]) + of_soft_mask[options.soft_masks]


def write(
    output: pathlib.Path,
    answer: Predicted,
    options: Options,
    *,
    class_names: Sequence[str],
    scores: Mapping[str, Score] = NO_SCORES,
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
        scores: of the method.
        background_classes: those without a region.
        of_model: flags of all images.
        scratch: folder for what does not fit in memory.
    """
    prediction, stem = answer.prediction, answer.source.input.stem
    name = class_names[prediction.predicted]
    paths = {kind: output / path for kind, path in files(stem, options).items()}
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
    found = _find_regions(answer, options, scratch)
    share = _write_mask(paths["mask"], answer, options.threshold)
    width = _WIDTH if isinstance(answer.mask, DiskArray) else None
    overlay = overlays.draw(answer.image, prediction.mask, threshold=options.threshold, width=width)
    overlay.save(paths["overlay"], compress_level=_OVERLAY_LEVEL)
    if options.soft_masks:
        _write_soft_mask(paths["soft_mask"], answer, scratch)
    if options.geojson:
        region_files.write_geojson(
            paths["geojson"],
            answer,
            found,
            classification=name,
            tolerance=options.tolerance,
            object_type=options.geojson_type,
        )
    if options.coco:
        region_files.write_annotations(paths["coco"], answer, found)
    return {
        "path": str(answer.source.input.path),
        "stem": stem,
        "mask": files(stem, options)["mask"],
        "height": answer.source.size[0],
        "width": answer.source.size[1],
        "microns_per_pixel": answer.source.microns,
        "ignored_pixel_size": _describe_ignored(answer.source.said),
        "bounds": answer.source.image.bounds,
        "rescaling": answer.source.rescaling,
        "num_tiles": answer.num_tiles,
        "class": name,
        "probability": float(prediction.probabilities[prediction.predicted]),
        "probabilities": dict(zip(class_names, map(float, prediction.probabilities))),
        **image_predictions.known_scores(prediction, scores, background_classes=background_classes),
        "foreground_share": share,
        "num_instances": len(found.regions),
        "threshold": options.threshold,
        "not_read": dict(answer.source.image.lossy),
        "flags": [
            *trust.find_flags(
                prediction, threshold=options.threshold, scores=scores, background_classes=background_classes
            ),
            *answer.source.flags,
            *of_model,
        ],
    }


def _describe_ignored(said: pixel_size.PixelSize) -> dict[str, Any] | None:
    return {"microns": said.sides, "reason": said.ignored} if said.ignored else None


def _find_regions(answer: Predicted, options: Options, scratch: pathlib.Path) -> region_files.Found:
    mask, min_area = answer.mask, max(1, math.ceil(options.min_area / math.prod(answer.scale)))
    if isinstance(mask, np.ndarray):
        return region_files.Found(*regions.find(mask, threshold=options.threshold, min_area=min_area))
    labels = DiskArray(scratch / "labels", mask.shape, np.int32)
    found = banded_regions.find(mask, labels, threshold=options.threshold, min_area=min_area)
    return region_files.Found(labels, found)


def _write_mask(path: pathlib.Path, answer: Predicted, threshold: float) -> float:
    """Writes the mask at the size of the image, and returns the share of its foreground."""
    count = 0

    def bands() -> Iterator[np.ndarray]:
        nonlocal count
        for rows in resampling.resample(answer.mask, answer.source.size):
            foreground = rows >= threshold
            count += np.count_nonzero(foreground)
            yield 255 * foreground.astype(np.uint8)

    png.write(path, answer.source.size, bands(), microns=answer.source.microns)
    return count / math.prod(answer.source.size)


def _write_soft_mask(path: pathlib.Path, answer: Predicted, scratch: pathlib.Path) -> None:
    """Writes an array of the size of the image, some rows at a time, or a TIFF of the size of the mask."""
    if path.suffix != ".npy":
        (down, across), microns = answer.scale, answer.source.microns
        sides = (microns * across, microns * down) if microns else None
        ome_tiff.write(path, answer.mask, microns=sides, scratch=scratch)
        return
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": tuple(map(int, answer.source.size))}
        )
        for rows in resampling.resample(answer.mask, answer.source.size):
            file.write(rows.astype("<f2").tobytes())
