"""`rdf.yaml`: the description of an ONNX file for the BioImage model zoo, with arrays to test it by."""

from collections.abc import Mapping, Sequence
import datetime
import hashlib
import pathlib
import re
from typing import Any

import numpy as np

from minmax_jax.base import disk
from minmax_jax.export.networks import MIN_SIDE
from minmax_jax.export.onnx_conversion.graph import OPSET
from minmax_jax.method import Score

NAME = "rdf.yaml"
_SPECIFICATION = "0.5.3"
_DESCRIPTIONS = {
    "probabilities": "Probability of each class.",
    "masks": "Soft mask of the foreground: the region that identifies the class.",
}


def file_names(outputs: Sequence[str]) -> list[str]:
    """The files that `write` makes."""
    return [NAME, *(f"test_{name}.npy" for name in ("images", *outputs))]


def is_of(folder: pathlib.Path, card: Mapping[str, Any]) -> bool:
    """Whether the folder has a description of a file of this model, such as of one for another size."""
    path = folder / NAME
    return path.exists() and card["state_digest"] in path.read_text(encoding="utf-8", errors="replace")


def explain_absence(folder: pathlib.Path) -> str:
    """A sentence about an ONNX file that `write` was not called for."""
    if (folder / NAME).exists():
        return f"{NAME} stays that of the first file of the folder; in another folder this file gets one as well."
    return f"There is no {NAME}: its format needs a publication to cite, and the method names none."


def write(
    folder: pathlib.Path,
    *,
    name: str,
    weights: tuple[str, str],
    card: Mapping[str, Any],
    scores: Mapping[str, Score],
    cite: tuple[str, str],
    images: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    is_size_free: bool,
    documentation: str,
    licence: str,
) -> None:
    """Writes `rdf.yaml` and the arrays that it names.

    Args:
        folder: of the ONNX file.
        name: of the model.
        weights: name and SHA-256 of the ONNX file.
        card: content of `model_card.json`.
        scores: of the method.
        cite: text and URL of the method's publication, without which no description is valid.
        images: [B, H, W, 3] uint8, preprocessed.
        outputs: the model's results for them, by name.
        is_size_free: whether the file takes images of any height and width.
        documentation: name of a text in the folder.
        licence: SPDX identifier of the weights' licence, "" if unknown.
    """
    import yaml

    source, digest = weights
    content = {
        "format_version": _SPECIFICATION,
        "type": "model",
        "name": _plain(name),
        "description": "Class of an image, and a soft mask of the region that identifies it; learned from labels.",
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "documentation": documentation,
        "cite": [dict(zip(("text", "url"), cite, strict=True))],
        "tags": ["weakly-supervised", "segmentation", "classification", "2d", "rgb"],
        **({"license": licence} if licence else {}),
        "inputs": [_describe_input(folder, images, card, is_size_free)],
        "outputs": [
            _describe_output(folder, output, values, card, scores, is_size_free) for output, values in outputs.items()
        ],
        "weights": {"onnx": {"source": source, "sha256": digest, "opset_version": OPSET}},
        "config": {
            "minmax_jax": {
                key: card[key]
                for key in ("method", "state_digest", "foreground_threshold", "preprocessing", "flips", "scales")
            }
        },
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    with disk.replacing(folder / NAME) as replacement:
        replacement.write_text(text, encoding="utf-8")


def _plain(name: str) -> str:
    """A name that the zoo takes: letters, digits, and few signs."""
    return re.sub(r"[^A-Za-z0-9_()\- ]+", "_", f"minmax_jax {name}")[:128].strip()


def _describe_input(
    folder: pathlib.Path, images: np.ndarray, card: Mapping[str, Any], is_size_free: bool
) -> dict[str, Any]:
    _, height, width, _ = images.shape
    sides = [{"min": MIN_SIDE, "step": 1}] * 2 if is_size_free else [height, width]
    size = "any size" if is_size_free else f"{height}x{width} pixels"
    return {
        "id": "images",
        "description": f"RGB images of {size}, prepared as for the training, 0 to 255.",
        "axes": [{"type": "batch"}, *_space(sides, card), _channels(["red", "green", "blue"])],
        # The type is that of the file's input: programs of the zoo go back to it after their steps.
        "test_tensor": _save(folder, "images", images.astype(np.float32)),
        "data": {"type": "float32", "range": [0, 255]},
        "preprocessing": [{"id": "scale_linear", "kwargs": {"gain": 1 / 127.5, "offset": -1.0}}],
    }


def _describe_output(
    folder: pathlib.Path,
    name: str,
    values: np.ndarray,
    card: Mapping[str, Any],
    scores: Mapping[str, Score],
    is_size_free: bool,
) -> dict[str, Any]:
    sides = [{"tensor_id": "images", "axis_id": axis} for axis in "yx"] if is_size_free else values.shape[1:3]
    axes = {
        "probabilities": lambda: [_channels(card["class_names"])],
        "masks": lambda: [*_space(sides, card), _channels(["foreground"])],
    }
    return {
        "id": name,
        "description": _DESCRIPTIONS[name] if name in _DESCRIPTIONS else scores[name].description,
        "axes": [{"type": "batch"}, *axes.get(name, list)()],
        "test_tensor": _save(folder, name, values),
        "data": {"type": "float32"},
    }


def _space(sides: Sequence[Any], card: Mapping[str, Any]) -> list[dict[str, Any]]:
    preprocessing, microns = card["preprocessing"], card.get("microns_per_pixel", 0)
    is_known = microns and not preprocessing["min_side"] and not preprocessing["max_side"]
    unit = {"unit": "micrometer", "scale": microns / preprocessing["scale"]} if is_known else {}
    return [{"type": "space", "id": name, "size": side} | unit for name, side in zip("yx", sides)]


def _channels(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "channel", "channel_names": list(names)}


def _save(folder: pathlib.Path, name: str, values: np.ndarray) -> dict[str, str]:
    path = folder / f"test_{name}.npy"
    np.save(path, values)
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
