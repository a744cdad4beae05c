"""The output folder of a prediction: files of each image, tables of all, and last the manifest that says complete."""

from collections.abc import Iterator, Mapping, Sequence
import csv
import dataclasses
import json
import logging
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from minmax_jax import options as options_lib
from minmax_jax import progress
from minmax_jax.errors import OptionError
from minmax_jax.prediction import batches, coco, geojson, outlines, overlays, regions, trust
from minmax_jax.prediction.inputs import Input
from minmax_jax.runs.predictor import Predictor

logger = logging.getLogger(__name__)
ROWS, TABLE, COCO, MANIFEST = "predictions.jsonl", "predictions.csv", "coco.json", "manifest.json"
_STATE = "options.json"  # what the files of an unfinished prediction were made with


@dataclasses.dataclass(frozen=True)
class Options:
    """What is written, and how masks become regions.

    Attributes:
        threshold: a pixel is foreground where the soft mask is at least this.
        geojson: whether polygons are written for QuPath.
        coco: whether regions are written as COCO annotations.
        soft_masks: whether soft masks are written as .npy, float16.
        least_area: regions with fewer pixels are left out of counts, polygons and annotations; masks keep them.
        tolerance: in pixels, by how much polygons may be simplified.
        batch_size: images of one shape that are predicted together.

    Raises:
        OptionError: for a number out of range.
    """

    threshold: float = 0.5
    geojson: bool = False
    coco: bool = False
    soft_masks: bool = False
    least_area: int = 16
    tolerance: float = 0.5
    batch_size: int = 8

    def __post_init__(self):
        options_lib.check_range("threshold", self.threshold, 1e-6, 1 - 1e-6)
        options_lib.check_range("least_area", self.least_area, 1)
        options_lib.check_range("tolerance", self.tolerance, 0)
        options_lib.check_range("batch_size", self.batch_size, 1)


def predict(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    *,
    model: Mapping[str, Any],
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """Predicts files into a folder; after a kill, the same call goes on where it was.

    Args:
        predictor: the model.
        inputs: the files.
        output: the folder, created if there is none.
        options: what is written.
        model: identifies the model, as JSON values.
        results: content of the run's `results.json`, {} without.

    Returns:
        The content of the manifest; "skipped" lists the files that could not be predicted.

    Raises:
        OptionError: if the folder holds predictions of another model, or made with other options.
    """
    state = {"model": dict(model), "options": dataclasses.asdict(options)}
    rows = _open(output, state)
    done = {row["stem"]: row for row in rows if (output / row["mask"]).exists()}
    (output / MANIFEST).unlink(missing_ok=True)
    rest, skipped = [item for item in inputs if done.get(item.stem, {}).get("path") != str(item.path)], []
    of_model = trust.find_model_flags(results)
    with (
        (output / ROWS).open("a", encoding="utf-8") as file,
        progress.meter("Prediction", total=len(inputs), unit="image", initial=len(inputs) - len(rest)) as update,
    ):
        for answer in batches.predict(predictor, rest, batch_size=options.batch_size):
            update(1)
            if isinstance(answer, batches.Skipped):
                logger.warning("Skipped: %s", answer.reason)
                skipped.append({"path": str(answer.input.path), "reason": answer.reason})
                continue
            row = _write_image(output, answer, options, predictor.class_names, of_model)
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[row["stem"]] = row
    written = [done[item.stem] for item in inputs if item.stem in done]
    # Rows of other files, of an earlier call, are left out.
    _write(output / ROWS, "".join(json.dumps(row) + "\n" for row in written))
    _write_tables(output, written, options, predictor.class_names)
    manifest = state | {
        "num_images": len(written),
        "num_flagged": sum(bool(row["flags"]) for row in written),
        "skipped": skipped,
        "files": {row["stem"]: row["path"] for row in written},
    }
    _write(output / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return manifest


def _open(output: pathlib.Path, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that are there; a last line that a kill cut off is dropped."""
    for folder in ("masks", "overlays"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    path = output / _STATE
    if path.exists() and json.loads(path.read_text()) != state:
        raise OptionError(
            f"output={str(output)!r} holds predictions of another model, or made with other options. Choose another"
            " folder, or delete it."
        )
    _write(path, json.dumps(state, indent=2) + "\n")
    rows = []
    if (output / ROWS).exists():
        for line in (output / ROWS).read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        _write(output / ROWS, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _write(path: pathlib.Path, text: str) -> None:
    replacement = path.with_name(f"{path.name}.new")
    replacement.write_text(text, encoding="utf-8")
    replacement.replace(path)


def _write_image(
    output: pathlib.Path,
    answer: batches.Predicted,
    options: Options,
    class_names: Sequence[str],
    of_model: Sequence[str],
) -> dict[str, Any]:
    """Writes the files of an image, and returns its row."""
    prediction, stem = answer.prediction, answer.input.stem
    mask, predicted = prediction.mask, prediction.predicted
    labels, found = regions.find(mask, threshold=options.threshold, least_area=options.least_area)
    foreground = mask >= options.threshold
    Image.fromarray(255 * foreground.astype(np.uint8)).save(output / f"masks/{stem}.png")
    overlays.draw(answer.image, mask, threshold=options.threshold).save(output / f"overlays/{stem}.png")
    if options.soft_masks:
        (output / "soft_masks").mkdir(exist_ok=True)
        np.save(output / f"soft_masks/{stem}.npy", mask.astype(np.float16))
    if options.geojson:
        (output / "geojson").mkdir(exist_ok=True)
        with (output / f"geojson/{stem}.geojson").open("w", encoding="utf-8") as file:
            geojson.write(file, _features(answer, labels, found, options, class_names[predicted]))
    if options.coco:
        (output / "coco").mkdir(exist_ok=True)
        described = [
            region._asdict() | {"segmentation": coco.encode(labels, number, region.box)}
            for number, region in enumerate(found, 1)
        ]
        _write(output / f"coco/{stem}.json", json.dumps(described))
    return {
        "path": str(answer.input.path),
        "stem": stem,
        "mask": f"masks/{stem}.png",
        "height": mask.shape[0],
        "width": mask.shape[1],
        "class": class_names[predicted],
        "probability": float(prediction.probabilities[predicted]),
        "probabilities": dict(zip(class_names, map(float, prediction.probabilities))),
        **{name: value for name, value in prediction.scores.items() if name.endswith("entropy")},
        "foreground_share": float(foreground.mean()),
        "num_instances": len(found),
        "threshold": options.threshold,
        "flags": [*trust.find_flags(prediction, threshold=options.threshold), *of_model],
    }


def _features(
    answer: batches.Predicted, labels: np.ndarray, found: Sequence[regions.Region], options: Options, name: str
) -> Iterator[dict[str, Any]]:
    """The polygons of each region, which may touch itself at corners and then has several."""
    mask = answer.prediction.mask
    for number, region in enumerate(found, 1):
        top, left, bottom, right = region.box
        window = slice(max(top - 1, 0), bottom + 1), slice(max(left - 1, 0), right + 1)
        is_other = (labels[window] != number) & (mask[window] >= options.threshold)
        alone = np.where(is_other, 0, mask[window])
        for polygon in outlines.find(
            alone, threshold=options.threshold, least_area=options.least_area, tolerance=options.tolerance
        ):
            polygon = [ring + (window[1].start, window[0].start) for ring in polygon]
            measurements = {"Area px": outlines.polygon_area(polygon), "Mean score": region.score}
            yield geojson.feature(polygon, classification=name, measurements=measurements)


def _write_tables(
    output: pathlib.Path, rows: Sequence[dict[str, Any]], options: Options, class_names: Sequence[str]
) -> None:
    columns = ["path", "stem", "height", "width", "class", "probability", "foreground_entropy", "background_entropy"]
    columns += ["foreground_share", "num_instances", "threshold", "flags", *(f"p_{name}" for name in class_names)]
    replacement = output / f"{TABLE}.new"
    with replacement.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        table.writeheader()
        for row in rows:
            of_classes = {f"p_{name}": value for name, value in row["probabilities"].items()}
            table.writerow(row | of_classes | {"flags": "; ".join(row["flags"])})
    replacement.replace(output / TABLE)
    if options.coco:
        replacement = output / f"{COCO}.new"
        with replacement.open("w", encoding="utf-8") as file:
            coco.write(file, _coco_images(output, rows), class_names)
        replacement.replace(output / COCO)


def _coco_images(output: pathlib.Path, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], list]]:
    for row in rows:
        yield row, json.loads((output / f"coco/{row['stem']}.json").read_text())
