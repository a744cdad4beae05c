"""The saved model: `model.safetensors` with its variables, `model_card.json` with everything needed to use them.

The two files need neither the checkpoints nor the dataset, so that a workdir can be moved to a machine without them.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import pathlib
import time
from typing import Any

import flax
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from minmax_jax.base import disk
from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.data import readings
from minmax_jax.models import decoder
from minmax_jax.refinement import calibration
from minmax_jax.refinement.options import RefineOptions
from minmax_jax.runs.building.options import RunOptions
from minmax_jax.runs.folder import digests, results
from minmax_jax.runs.folder import workdir as workdir_lib
from minmax_jax.training import batch_stats as stats_lib

CARD, MODEL = "model_card.json", "model.safetensors"
_FORMAT = 1
# Another process may replace the two files, one after the other, while they are read.
_ATTEMPTS, _SECONDS_BETWEEN_ATTEMPTS = 5, 0.3
# What the file says of its own arrays, for programs that bring them to another library.
LAYOUT = {
    "convolution_kernels": "HWIO: height, width, input channels, output channels",
    "depthwise_kernels": "HWIO with one input channel: height, width, 1, channels",
    "dense_kernels": "input features, output features",
    "order": "C: the last index changes fastest",
    "images": "NHWC: batch, height, width, channels",
    "names": "of Flax, joined by /",
}
# What a predictor reads.
_NEEDED = {"class_names", "flips", "mask", "method", "model", "preprocessing", "step"}


class ModelCardError(UserError):
    """A folder without a usable model; the message names the file and what to do."""


def save(folder: pathlib.Path, card: dict[str, Any], variables: dict[str, Any]) -> None:
    """Writes a model to a folder.

    Args:
        folder: of the run.
        card: as of `describe`; the digests of a second stage and of the other file are added.
        variables: "params", "batch_stats" and, of a run with a second stage, "decoder".
    """
    leaves = flax.traverse_util.flatten_dict(variables, sep="/")
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in leaves.items()}
    metadata = LAYOUT | {"minmax_jax": str(card.get("versions", {}).get("minmax_jax"))}
    content = safetensors_numpy.save(arrays, metadata=metadata)
    of_files = {"second_stage_digest": digest_second_stage(card, variables), "model_sha256": _sha256(content)}
    with disk.replacing(folder / MODEL) as replacement:
        replacement.write_bytes(content)
    workdir_lib.write_json(folder / CARD, card | of_files)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_second_stage(card: dict[str, Any], variables: dict[str, Any]) -> str:
    """SHA-256 of the decoder and of how its masks are scaled; "" without."""
    if "decoder" not in variables:
        return ""
    return digests.digest({"calibration": card["refine"]["calibration"], "decoder": variables["decoder"]})


def describe(
    options: RunOptions,
    *,
    steps_per_epoch: int,
    class_names: Sequence[str],
    background_classes: Sequence[str] = (),
    crop_size: tuple[int, int],
    train_labels: np.ndarray,
    step: int,
    state_digest: str,
    reading: readings.Reading = readings.AS_STORED,
    microns_per_pixel: float = 0.0,
) -> dict[str, Any]:
    """The card of a model, as JSON values.

    Args:
        options: of the run.
        steps_per_epoch: of the training.
        class_names: of the C classes.
        background_classes: names of those without a region.
        crop_size: height and width of the training crops.
        train_labels: [N] of the training images.
        step: that trained the model.
        state_digest: SHA-256 of its parameters and statistics.
        reading: how the training images were read from their files.
        microns_per_pixel: of the prepared images, 0 if unknown; the configuration's counts before it.
    """
    evaluation, data, environment = options.evaluation, options.data, results.environment()
    threshold = options.mask.threshold(max(step - 1, 0) // steps_per_epoch)
    return {
        "format": _FORMAT,
        "method": options.method,
        "class_names": list(class_names),
        "background_classes": list(background_classes),
        "preprocessing": dataclasses.asdict(data.preprocessing),
        "reading": reading.to_json(),  # of image files
        "normalization": {"mean": 127.5, "std": 127.5},  # of uint8 pixels
        "crop_size": list(crop_size),
        "microns_per_pixel": data.microns_per_pixel or microns_per_pixel,
        "model": dataclasses.asdict(options.model),
        # The threshold of this step; it grows no further.
        "mask": dataclasses.asdict(options.mask) | {"sigma": float(threshold), "sigma_growth": 0.0},
        "foreground_threshold": evaluation.threshold,
        "flips": {axis: bool(evaluation.flips and used) for axis, used in options.training_flips.items()},
        "training_flips": options.training_flips,
        "scales": list(evaluation.scales),
        "refine": dataclasses.asdict(options.refine),
        "trained_on": {
            name: getattr(data, name)
            for name in ("dataset", "name", "folds", "split", "validation_share", "validation_seed")
        }
        | results.describe_training_data(train_labels, data),
        "step": step,
        "state_digest": state_digest,
        "versions": environment["versions"],
        "git_commit": environment["git_commit"],
    }


def read(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The card and the variables of a saved model.

    Raises:
        ModelCardError: if a file is missing or damaged, was written by a newer version, or belongs to another model
            than the other file.
    """
    try:
        card, content = _read_files(folder)
        tensors = safetensors_numpy.load(content)
    except FileNotFoundError as error:
        raise ModelCardError(
            f"workdir={str(folder)!r} holds no saved model ({pathlib.Path(error.filename or folder / MODEL).name} is"
            " missing). It is written when a run has finished: rerun the command that trains to resume it."
        ) from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelCardError(f"The model in {str(folder)!r} cannot be read ({error}). Get an intact copy.") from error
    if not isinstance(card, dict):
        raise ModelCardError(f"{folder / CARD} is no model card. Get an intact copy.")
    if card.get("format") != _FORMAT:
        raise ModelCardError(
            f"{folder / CARD} has format {card.get('format')!r}; this version reads {_FORMAT}. Install the version of"
            f" minmax_jax that wrote it: {card.get('versions', {}).get('minmax_jax')}."
        )
    if missing := _NEEDED - card.keys():
        raise ModelCardError(f"{folder / CARD} lacks {', '.join(sorted(missing))}. Get an intact copy.")
    refine = card.get("refine", {"enabled": False})
    if refine["enabled"] and refine.get("width", decoder.Decoder.width) != decoder.Decoder.width:
        raise ModelCardError(
            f"{folder / CARD}: refine.width={refine['width']}, and decoders of this version have"
            f" {decoder.Decoder.width} channels. Install the version of minmax_jax that wrote it:"
            f" {card.get('versions', {}).get('minmax_jax')}."
        )
    try:
        readings.from_json(card.get("reading"))
    except (OptionError, KeyError, TypeError) as error:
        raise ModelCardError(f"{folder / CARD}: reading={card['reading']!r} is none. Get an intact copy.") from error
    if unknown := set(card.get("background_classes", [])) - set(card["class_names"]):
        raise ModelCardError(
            f"{folder / CARD}: background_classes names {min(unknown)!r}, which is none of class_names. Rename a"
            " class in both."
        )
    card = complete(card)
    chosen, known = card["refine"].get("calibration"), tuple(calibration.CALIBRATIONS)
    if card["refine"]["enabled"] and chosen not in known:
        raise ModelCardError(
            f"{folder / CARD}: refine.calibration={chosen!r} must be one of {known} in this version. Train the second"
            " stage again (minmax-jax refine), or install the version that wrote it."
        )
    # A trunk without batch norm has no statistics: nothing of them is in the file.
    return card, {"batch_stats": stats_lib.create({})} | flax.traverse_util.unflatten_dict(tensors, sep="/")


def _read_files(folder: pathlib.Path, *, attempts: int = _ATTEMPTS) -> tuple[Any, bytes]:
    """The card and the content of the other file, of one model."""
    card, content = json.loads((folder / CARD).read_text()), (folder / MODEL).read_bytes()
    # Older cards do not say it.
    if not isinstance(card, dict) or card.get("model_sha256") in (None, _sha256(content)):
        return card, content
    if attempts == 1:
        raise ModelCardError(
            f"{folder / MODEL} is not the file that {folder / CARD} describes: one of them was changed, damaged, or"
            " replaced without the other. Copy both from the same run, or rerun the command that trained it."
        )
    time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
    return _read_files(folder, attempts=attempts - 1)


def refine_options(card: dict[str, Any]) -> RefineOptions:
    """Options of the second stage of a model; a card that is older than an option reads as with its default."""
    known = [field.name for field in dataclasses.fields(RefineOptions)]
    values = {name: card["refine"][name] for name in known if name in card["refine"]}
    return RefineOptions(**values | {"enabled": True, "scales": tuple(values.get("scales", RefineOptions.scales))})


def identify(card: dict[str, Any]) -> dict[str, str]:
    """What predicts by a card: equal for the same variables, second stage and classes without a region."""
    names = ["state_digest"] + ["second_stage_digest"] * card["refine"]["enabled"]
    names += ["background_classes"] * bool(card["background_classes"])
    return {name: card[name] for name in names}


def background_labels(card: dict[str, Any]) -> tuple[int, ...]:
    """The numbers of the classes without a region."""
    return tuple(map(card["class_names"].index, card["background_classes"]))


def complete(card: dict[str, Any]) -> dict[str, Any]:
    """The card with the fields that older ones lack; nearly all recipes mirror images left to right."""
    older = {
        "scales": [1.0],
        "refine": {"enabled": False},
        "second_stage_digest": "",
        "background_classes": [],
        "training_flips": {"horizontal": True, "vertical": False},
        "reading": readings.AS_STORED.to_json(),
    }
    return older | card | {"model": {"mask_head": False} | card["model"]}
