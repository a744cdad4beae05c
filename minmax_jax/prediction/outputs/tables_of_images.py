"""What is known of all images of a prediction, in one file: a table, and annotations."""

from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
from typing import Any

from minmax_jax.base import disk, tables
from minmax_jax.method import Score
from minmax_jax.prediction.inputs import Input, name_files
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.outputs import coco, image_outputs


def write_csv(
    path: pathlib.Path, rows: Sequence[dict[str, Any]], class_names: Sequence[str], *, scores: Mapping[str, Score]
) -> None:
    """Writes a row for each image, with a column for the probability of each class.

    Args:
        path: of the file.
        rows: of `predictions.jsonl`.
        class_names: of the C classes.
        scores: of the method: a column each, but for classes.
    """
    columns = ["path", "stem", "height", "width", "microns_per_pixel", "rescaling", "num_tiles", "class", "probability"]
    columns += [name for name, score in scores.items() if score.kind != "class"]
    columns += ["foreground_share", "num_instances", "threshold", "flags"]
    header = [*columns, *(f"p_{name}" for name in class_names)]

    def cells() -> Iterator[list]:
        for row in rows:
            shown = row | {"flags": "; ".join(row["flags"])}
            yield [shown.get(name) for name in columns] + [row["probabilities"].get(name) for name in class_names]

    tables.write(path, header, cells())


def write_coco(
    path: pathlib.Path,
    inputs: Sequence[Input],
    rows: Mapping[str, dict[str, Any]],
    options: Options,
    class_names: Sequence[str],
) -> None:
    """Writes the annotations of all images, which are in files of each, as one COCO file.

    Args:
        path: of the file, in the folder of the prediction.
        inputs: all files.
        rows: of those that were predicted, by their stems.
        options: of the prediction.
        class_names: of the C classes.
    """
    names, folder = name_files(inputs)

    def images() -> Iterator[tuple[dict[str, Any], list]]:
        for item, name in zip(inputs, names):
            if item.stem in rows:
                regions = (path.parent / image_outputs.files(item.stem, options)["coco"]).read_text(encoding="utf-8")
                yield rows[item.stem] | {"file_name": name}, json.loads(regions)

    with disk.replacing(path) as replacement, replacement.open("w", encoding="utf-8") as file:
        coco.write(file, images(), class_names, folder=folder)
