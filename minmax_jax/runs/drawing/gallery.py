"""Images for the report of a run: the worst, the best, the wrong, the flagged and some others, in `gallery/`."""

from collections.abc import Sequence
import pathlib
import shutil

import numpy as np

from minmax_jax.base import strict_json
from minmax_jax.data import dataset
from minmax_jax.evaluation import predict_split
from minmax_jax.evaluation.evaluators import Row
from minmax_jax.report import layers
from minmax_jax.runs.building.run import Run
from minmax_jax.training import state as state_lib

FOLDER, INDEX = "gallery", "index.json"
_OF_GROUP = 12


def choose(rows: Sequence[Row]) -> dict[int, list[str]]:
    """Numbers of the rows to show, each with its groups: "worst", "best", "wrong", "flagged", "random".

    Args:
        rows: of the test split. The order of the masks is by the mean of F1+ and F1-; without masks no image is worst.
            Of wrong classes the most confident are taken, of flagged images those with the most flags.
    """
    scores = [
        (row["f1_foreground"] + row["f1_background"]) / 2
        if _is_number(row["f1_foreground"]) and _is_number(row["f1_background"])
        else None
        for row in rows
    ]
    scored = sorted((index for index, score in enumerate(scores) if score is not None), key=lambda i: scores[i])
    wrong = [index for index, row in enumerate(rows) if row["predicted"] != row["label"]]
    wrong.sort(key=lambda index: -max(rows[index]["probabilities"]))
    flagged = [index for index, row in enumerate(rows) if row["flags"]]
    flagged.sort(key=lambda index: -len(rows[index]["flags"]))
    random = np.random.RandomState(0).permutation(len(rows))  # the same images for each run on a dataset
    groups = {
        "worst": scored[:_OF_GROUP],
        "best": scored[::-1][:_OF_GROUP],
        "wrong": wrong[:_OF_GROUP],
        "flagged": flagged[:_OF_GROUP],
        "random": random[:_OF_GROUP].tolist(),
    }
    chosen: dict[int, list[str]] = {}
    for name, indices in groups.items():
        for index in indices:
            chosen.setdefault(index, []).append(name)
    return chosen


def _is_number(value: float | None) -> bool:
    return value is not None and not np.isnan(value)


def write(run: Run, folder: pathlib.Path, state: state_lib.TrainState, rows: Sequence[Row]) -> None:
    """Predicts the chosen images again, and writes image, masks, outlines and instances of each, and an index.

    Args:
        run: the run.
        folder: of the run.
        state: of the tested model.
        rows: of the test split.
    """
    target, split = empty_folder(folder / FOLDER), run.splits["test"]
    chosen, variables = choose(rows), state_lib.inference_variables(state)
    indices = sorted(chosen)
    subset, entries = dataset.subset(split, np.array(indices)), {}
    for prediction in predict_split(
        lambda images: run.predict(variables, images),  # the program of the test: to compile another takes longer
        subset,
        batch_size=run.options.evaluation.batch_size,
        refine_fn=run.refine_fn,
        shapes=run.shapes,
    ):
        index = indices[prediction.index]
        image, true = subset.read_image(prediction.index), subset.read_mask(prediction.index)
        foreground = prediction.mask >= run.options.evaluation.threshold
        regions, num_regions = layers.draw_instances(foreground)
        layers.save(target / f"{index}.jpg", image)
        layers.save(target / f"{index}_mask.png", layers.tint(prediction.mask))
        layers.save(target / f"{index}_outline.png", layers.draw_outlines(foreground, true))
        layers.save(target / f"{index}_instances.png", regions)
        if true is not None:
            layers.save(target / f"{index}_true.png", layers.tint(true, layers.TRUE_COLOR), size=image.shape[:2])
        row = rows[index]
        names = ("name", "label", "predicted", "f1_foreground", "f1_background", "flags")
        entries[index] = {name: row[name] for name in names} | {
            "index": index,
            "groups": chosen[index],
            "probability": max(row["probabilities"]),
            "has_truth": true is not None,
            "num_instances": num_regions,
            **{name: row[name] for name, score in run.method.scores.items() if score.kind != "class" and name in row},
        }
    (target / INDEX).write_text(strict_json.dumps([entries[index] for index in indices]))


def empty_folder(path: pathlib.Path) -> pathlib.Path:
    """Creates a folder anew, without what was in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path
