"""Heat maps of any other system, from files, scored as the masks of this library."""

import collections
from collections.abc import Iterator
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from minmax_jax import evaluation
from minmax_jax.base import strict_json
from minmax_jax.base.paths import local_path
from minmax_jax.configs import common
from minmax_jax.data import dataset
from minmax_jax.evaluation import ImagePrediction, baselines, metric_table
from minmax_jax.runs.building import data_splits, metric_sets
from minmax_jax.runs.building import options as options_lib

ENDINGS = (".npy", ".npz", ".png")
_GREY = ("L", "I;16", "I;16B")  # Pillow's modes


class HeatMapError(dataset.DataError):
    """A heat map that cannot be scored; the message names the file."""


def evaluate_folder(
    folder: str | pathlib.Path, name: str, split: str, *, data_dir: str, folds: str = "", threshold: float = 0.5
) -> dict[str, Any]:
    """Scores the heat maps in a folder.

    Args:
        folder: with `NAME.npy`, `.npz` or `.png` for each image `NAME.jpg` of the split, below the same folders, or not
            where no other image has that name.
        name: of the prepared dataset.
        split: "train", "validation" or "test".
        data_dir: folder of the prepared data.
        folds: folder of published split files, or "".
        threshold: a pixel is foreground where the heat map is at least this.

    Returns:
        {split: summary, "metrics": as in `results.json`, and the policies}.

    Raises:
        UserError: if the data are not prepared, or a heat map is missing or cannot be used.
    """
    config = common.get_config()
    config.evaluation.threshold = threshold
    config.data.dir, config.data.folds = data_dir, folds
    config.data.dataset, config.data.name = (name, "") if name in data_splits.PUBLISHED else ("custom", name)
    options = options_lib.read(config)
    images = data_splits.create_splits(options.data)[split]
    paths = _find(local_path("--predictions", folder), images)
    evaluators = metric_sets.create_mask_evaluators(options.evaluation)
    rows = evaluation.score(_read_all(paths), images, evaluators, baselines=baselines.BASELINES)
    return {
        split: strict_json.finite(evaluation.summarize(rows, evaluators)),
        "threshold": {"policy": "fixed", "value": threshold},
        "metrics": metric_table.describe(rows, images, evaluators),
    }


def _find(folder: pathlib.Path, split: dataset.Split) -> list[pathlib.Path]:
    """The heat map of each image."""
    if not folder.is_dir():
        raise HeatMapError(f"--predictions={str(folder)!r} is not a folder.")
    found, missing = [], []
    counts = collections.Counter(pathlib.PurePath(name).stem for name in split.names)
    for name in split.names:
        stems = [folder / pathlib.PurePath(name).with_suffix("")]
        if counts[stems[0].name] == 1:
            stems.append(folder / stems[0].name)
        candidates = [stem.parent / (stem.name + ending) for stem in stems for ending in ENDINGS]
        path = next((path for path in candidates if path.is_file()), None)
        (missing if path is None else found).append(name if path is None else path)
    if missing:
        raise HeatMapError(
            f"{len(missing)} of {len(split.names)} images have no heat map; the first: {missing[0]!r}, looked for as"
            f" {str(pathlib.PurePath(missing[0]).with_suffix('')) + '|'.join(ENDINGS)!r} in {folder}. Heat maps may lie"
            " outside of the folders of their images only where no two images have one name."
        )
    return found


def _read_all(paths: list[pathlib.Path]) -> Iterator[ImagePrediction]:
    for index, path in enumerate(paths):
        yield ImagePrediction(index=index, probabilities=None, mask=read(path), scores={})


def read(path: pathlib.Path) -> np.ndarray:
    """A heat map, [H, W] float32 in [0, 1]: numbers of a .npy file or of a .npz file's only array, or a grey PNG.

    Raises:
        HeatMapError: for another shape, values that are not in [0, 1], or a file that is damaged.
    """
    try:
        values = _read_picture(path) if path.suffix == ".png" else _read_array(path)
    except (OSError, ValueError) as error:
        raise HeatMapError(f"{path} cannot be read: {error}") from error
    values = np.squeeze(values)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number):
        raise HeatMapError(f"{path} holds {values.dtype}{list(values.shape)}; a heat map is [H, W] numbers.")
    values = values.astype(np.float32)
    if not (values.min() >= 0 and values.max() <= 1):  # also where a value is no number
        raise HeatMapError(
            f"{path} has values from {values.min():g} to {values.max():g}; scale all heat maps to [0, 1]."
        )
    return values


def _read_picture(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as picture:
        if picture.mode not in _GREY:
            raise ValueError(f"it has colours (mode {picture.mode}); a heat map is grey, 8 or 16 bits.")
        values = np.asarray(picture)
    return values / np.float32(np.iinfo(values.dtype).max)


def _read_array(path: pathlib.Path) -> np.ndarray:
    values = np.load(path, allow_pickle=False)
    if path.suffix == ".npy":
        return values
    if len(values.files) != 1:
        raise ValueError(f"it holds {len(values.files)} arrays; one is needed.")
    return values[values.files[0]]
