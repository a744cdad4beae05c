"""Images for the report of a run: the worst, the best, the wrong and some others, with masks, in `gallery/`."""

from collections.abc import Sequence
import json
import logging
import pathlib
import shutil

import numpy as np
from PIL import Image

from minmax_jax import state as state_lib
from minmax_jax.data import dataset
from minmax_jax.evaluation import predict_split
from minmax_jax.evaluation.evaluators import Row
from minmax_jax.runs import build, results

logger = logging.getLogger(__name__)
FOLDER, INDEX = "gallery", "index.json"
_OF_GROUP = 12
_SIDE = 256  # pixels of the larger side
_PREDICTED_COLOR, _TRUE_COLOR = (255, 212, 0), (0, 213, 255)


def choose(rows: Sequence[Row]) -> dict[int, list[str]]:
    """Numbers of the rows to show, each with its groups: "worst", "best", "wrong", "sample".

    Args:
        rows: of the test split. The order of the masks is by the mean of F1+ and F1-; without masks no image is worst.
    """
    scores = [
        (row["f1_foreground"] + row["f1_background"]) / 2
        if _is_number(row["f1_foreground"]) and _is_number(row["f1_background"])
        else None
        for row in rows
    ]
    scored = sorted((index for index, score in enumerate(scores) if score is not None), key=lambda i: scores[i])
    wrong = [index for index, row in enumerate(rows) if row["predicted"] != row["label"]]
    count = min(_OF_GROUP, len(rows))
    groups = {
        "worst": scored[:_OF_GROUP],
        "best": scored[::-1][:_OF_GROUP],
        "wrong": wrong[:_OF_GROUP],
        "sample": np.linspace(0, len(rows) - 1, count).round().astype(int).tolist(),
    }
    chosen: dict[int, list[str]] = {}
    for name, indices in groups.items():
        for index in indices:
            chosen.setdefault(index, []).append(name)
    return chosen


def _is_number(value: float | None) -> bool:
    return value is not None and not np.isnan(value)


def write(run: build.Run, folder: pathlib.Path, state: state_lib.TrainState, rows: Sequence[Row]) -> None:
    """Predicts the chosen images again, and writes image, soft mask and true mask of each, and an index.

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
        lambda images: run.predict(variables, images),
        subset,
        batch_size=run.config.evaluation.batch_size,
        refine_fn=run.refine_fn,
    ):
        index = indices[prediction.index]
        image, true = subset.read_image(prediction.index), subset.read_mask(prediction.index)
        save(target / f"{index}.jpg", image)
        save(target / f"{index}_mask.png", tint(prediction.mask))
        if true is not None:
            save(target / f"{index}_true.png", tint(true, _TRUE_COLOR), size=image.shape[:2])
        row = rows[index]
        names = ("name", "label", "predicted", "f1_foreground", "f1_background")
        entries[index] = {name: row[name] for name in names} | {
            "index": index,
            "groups": chosen[index],
            "probability": max(row["probabilities"]),
            "has_truth": true is not None,
            **{name: row[name] for name in ("foreground_entropy", "background_entropy") if name in row},
        }
    (target / INDEX).write_text(json.dumps([results.without_nan(entries[index]) for index in indices]))


def empty_folder(path: pathlib.Path) -> pathlib.Path:
    """Creates a folder anew, without what was in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def tint(mask: np.ndarray, color: tuple[int, int, int] = _PREDICTED_COLOR) -> np.ndarray:
    """[H, W, 4] uint8: a colour, as opaque as the mask [H, W] is great."""
    alpha = np.round(255 * np.asarray(mask, np.float32)).astype(np.uint8)
    return np.dstack([np.broadcast_to(np.array(color, np.uint8), (*mask.shape, 3)), alpha])


def save(path: pathlib.Path, pixels: np.ndarray, *, size: tuple[int, int] | None = None) -> None:
    """Writes pixels [H, W, ...], at most 256 a side.

    Args:
        path: of the file; .jpg or .png.
        pixels: uint8.
        size: height and width that count in place of the pixels' own.
    """
    height, width = size or pixels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    options = {"quality": 80} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(path, **options)
