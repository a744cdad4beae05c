"""What ends a prediction: rows and tables of all images in the order of the files, and last the manifest."""

from collections.abc import Mapping, Sequence
import logging
import pathlib
from typing import Any

from minmax_jax.base import strict_json
from minmax_jax.data import image_endings, lossy_reading, pixel_size
from minmax_jax.prediction import rows as rows_lib
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.outputs import tables_of_images
from minmax_jax.prediction.rows import Row
from minmax_jax.runs.predictor import Predictor

logger = logging.getLogger(__name__)
TABLE, COCO, MANIFEST = "predictions.csv", "coco.json", "manifest.json"
_REMEDIES = {
    "dark": "A model of data that were prepared with --intensity=percentiles reads them.",
    "channels": "A model of data that were prepared with --channels=0,1,2, or others, reads those.",
}


def complete(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    state: Mapping[str, Any],
    *,
    done: Mapping[str, Row],
    skipped: Sequence[Mapping[str, str]],
    further: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes rows, tables, annotations and manifest of all files; the log says what is special about them.

    Args:
        predictor: the model.
        inputs: all files.
        output: the folder.
        options: of the prediction.
        state: identifies the prediction, for the manifest.
        done: rows of the files that were predicted, by stem; those of other files are left out.
        skipped: files that could not be read, and why.
        further: what else the manifest says.

    Returns:
        The content of the manifest.
    """
    written = [done[item.stem] for item in inputs if item.stem in done]
    for line in lossy_reading.summarize([row.get("not_read", {}) for row in written], remedies=_REMEDIES):
        logger.warning("%s", line)
    if further["left_out"]:
        logger.warning("%s.", image_endings.describe(further["left_out"]))
    _describe_magnifications(written, predictor.card.get("microns_per_pixel"))
    for left in output.glob("*.new"):  # by processes that were killed: this one alone writes here now
        left.unlink()
    rows_lib.write(output, written)
    tables_of_images.write_csv(output / TABLE, written, predictor.class_names, scores=predictor.scores)
    if options.coco:
        tables_of_images.write_coco(output / COCO, inputs, done, options, predictor.class_names)
    numbers = {
        "num_images": len(written),
        "num_flagged": sum(bool(row["flags"]) for row in written),
        "skipped": list(skipped),
        "files": {row["stem"]: row["path"] for row in written},
    }
    manifest = {**state, **further, **numbers}
    rows_lib.write_text(output / MANIFEST, strict_json.dumps(manifest, indent=2) + "\n")
    return manifest


def _describe_magnifications(rows: Sequence[dict[str, Any]], of_training: float | None) -> None:
    """Says in a line each, however many images there are, which pixel sizes are used, ignored and unknown."""
    if rescaled := [row for row in rows if row["rescaling"] != 1]:
        factors = sorted({f"{row['rescaling']:.3g}" for row in rescaled}, key=float)
        logger.info(
            "%d of %d images have another pixel size than the images of the training, %.3g microns; %s has %.3g microns"
            " a pixel. They are resized by %s.",
            *(len(rescaled), len(rows), of_training, rescaled[0]["path"], rescaled[0]["microns_per_pixel"]),
            factors[0] if len(factors) == 1 else f"{factors[0]} to {factors[-1]}",
        )
    ignored = [(row["path"], row["ignored_pixel_size"]) for row in rows if row.get("ignored_pixel_size")]
    described = [(path, found["microns"], found["reason"]) for path, found in ignored]
    for line in pixel_size.describe_ignored(described, len(rows)):
        logger.warning("%s", line)
    unknown = sum(row["microns_per_pixel"] is None for row in rows) - len(ignored)
    if unknown and of_training:
        logger.warning(
            "%d of %d images do not say how many microns a pixel has: %.3g is assumed, as in training. Give it by"
            " microns_per_pixel if it is another.",
            *(unknown, len(rows), of_training),
        )
