"""Recursive erasing on test images, pass by pass, for the report: `film/`, with an index."""

import pathlib

import jax
import numpy as np

from minmax_jax.base import strict_json
from minmax_jax.data import padding
from minmax_jax.method import RecordedPass
from minmax_jax.ops import intensity
from minmax_jax.report import layers
from minmax_jax.runs.building.run import Run
from minmax_jax.runs.drawing import gallery
from minmax_jax.training import state as state_lib

FOLDER, INDEX = "film", "index.json"
_NUM_IMAGES = 6


def write(run: Run, folder: pathlib.Path, state: state_lib.TrainState) -> None:
    """Writes what each pass saw and found, for test images that have a region, evenly spaced; nothing without erasing.

    Args:
        run: the run.
        folder: of the run.
        state: of the tested model.
    """
    target, split = gallery.empty_folder(folder / FOLDER), run.splits["test"]
    if run.method.record_erasing is None:
        return
    variables, record, strips = state_lib.inference_variables(state), jax.jit(run.method.record_erasing), []
    erased = np.flatnonzero(split.has_region)
    for index in erased[np.linspace(0, len(erased) - 1, min(_NUM_IMAGES, len(erased))).round().astype(int)].tolist():
        image = split.read_image(index)
        passes = _until_untrusted(
            jax.device_get(record(variables, padding.pad(image)[None], split.labels[index : index + 1]))
        )
        for number, found in enumerate(passes):
            _draw(target, f"{index}_{number}", found, image.shape[:2])
        strips.append(
            {
                "name": split.names[index],
                "label": int(split.labels[index]),
                "passes": [
                    {"file": f"{index}_{number}", "trust": float(found.trust[0]), "loss": float(found.losses[0])}
                    for number, found in enumerate(passes)
                ],
            }
        )
    (target / INDEX).write_text(strict_json.dumps(strips))


def _until_untrusted(passes: list[RecordedPass]) -> list[RecordedPass]:
    """The passes up to the first without trust: it erases nothing, so that all after it are equal to it."""
    last = next((number for number, found in enumerate(passes) if found.trust[0] == 0), len(passes))
    return passes[: last + 1]


def _draw(target: pathlib.Path, name: str, found: RecordedPass, size: tuple[int, int]) -> None:
    pixels = padding.crop_back(intensity.to_uint8(found.images[0]), size)
    layers.save(target / f"{name}.jpg", pixels)
    layers.save(target / f"{name}_mask.png", layers.tint(padding.crop_back(found.masks[0, ..., 0], size)))
