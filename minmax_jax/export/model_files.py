"""Writes the model of a run as a file, compares the two, and describes it in a card and, of ONNX, for the model zoo."""

from collections.abc import Mapping, Sequence
import datetime
import hashlib
import json
import pathlib
from types import ModuleType
from typing import Any

import jax
from jax.extend import core
import numpy as np

from minmax_jax.base import disk, options, strict_json
from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.export import model_card_text, networks, onnx_file, stablehlo, verification, zoo
from minmax_jax.export.onnx_conversion.graph import OPSET
from minmax_jax.runs import predictor
from minmax_jax.runs.folder import model_card, results

FORMATS = {"stablehlo": stablehlo, "onnx": onnx_file}
_SIZES = ((64, 64), (45, 101), (160, 72))  # of the images that a file for any size is compared on


def write(
    workdir: pathlib.Path,
    output: pathlib.Path,
    *,
    format: str,
    size: networks.Size,
    flips: bool | None = None,
    scales: Sequence[float] | None = None,
    refine: bool | None = None,
    licence: str = "",
) -> dict[str, Any]:
    """Exports the model of a run.

    Args:
        workdir: folder of the run; the model is read, and `results.json` if it is there.
        output: the file, which must not exist; its folder must.
        format: "stablehlo" or "onnx".
        size: (H, W) of the preprocessed images; None: any.
        flips: test-time choices, as in `predictor.load`; None: as in the run's own test.
        scales: as `flips`.
        refine: as `flips`.
        licence: SPDX identifier of the weights' licence, "" if unknown.

    Returns:
        What was written, as JSON values: "file", "bytes", "sha256", "differences" by output; of StableHLO
        "guaranteed_until" and what `stablehlo.describe` says; of the first ONNX file of a folder "zoo", the name of its
        description for the model zoo, if the method names a publication.

    Raises:
        OptionError: for what cannot be exported, or written there.
        ExportError: if the file does not compute what the model computes; it is not kept.
    """
    options.check_choice("format", format, FORMATS)
    networks.check_size(size)
    _check_output(output)
    FORMATS[format].check_installed()
    # Other devices multiply in reduced precision by default: no model to compare with.
    with jax.default_device(_find_cpu()):
        model = predictor.load(workdir, flips=flips, scales=scales, refine=refine, dtype="float32")
        model_card_text.check(output.parent, model.card)
        if size is None:
            networks.check_free(model.card)
        network = networks.create(model)
        first, *others = _SIZES if size is None else [size]
        shapes = jax.eval_shape(network, np.zeros((1, *first, 3), np.float32))
        outputs = [name for name in networks.output_names(model.scores) if name in shapes]
        cite = model.method.cite if format == "onnx" else None
        is_described = cite is not None and not zoo.is_of(output.parent, model.card)
        if is_described:
            _check_absent(output.parent, zoo.file_names(outputs))
        given = [verification.choose_images(model, sides) for sides in (first, *others)]
        expected = [verification.predict(model, images) for images in given]
        written = _write_checked(output, FORMATS[format], network, size, _metadata(model.card), given, expected)
    if format == "stablehlo":
        written |= stablehlo.describe(output)
        written["guaranteed_until"] = stablehlo.guaranteed_until(datetime.date.today()).isoformat()
    _write_card(workdir, output, model, written, size, licence)
    if is_described:
        zoo.write(
            output.parent,
            name=workdir.resolve().name,
            weights=(output.name, written["sha256"]),
            card=model.card,
            scores=model.scores,
            cite=cite,
            images=given[0][:2],
            outputs={name: expected[0][name][:2] for name in outputs},
            is_size_free=size is None,
            documentation=model_card_text.NAME,
            licence=licence,
        )
    return written | ({"zoo": zoo.NAME} if is_described else {})


def _find_cpu() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "A file is compared with the model on the CPU, which JAX_PLATFORMS leaves out. Add it at the end, as in"
            " JAX_PLATFORMS=cuda,cpu, or unset the variable."
        ) from error


def _write_checked(
    output: pathlib.Path,
    format: ModuleType,
    network: networks.Network,
    size: networks.Size,
    metadata: Mapping[str, str],
    given: Sequence[np.ndarray],
    expected: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, Any]:
    """Writes the file under another name, runs it, and renames it if it says what is expected."""
    with disk.replacing(output) as replacement:
        _write_traced(format, replacement, network, size, metadata)
        run = format.read(replacement)
        found = [verification.check(run, *of_size) for of_size in zip(given, expected, strict=True)]
        differences = {name: max(of_size[name] for of_size in found) for name in found[0]}
        content = replacement.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"file": str(output), "bytes": len(content), "sha256": digest, "differences": differences}


def _write_traced(
    format: ModuleType, path: pathlib.Path, network: networks.Network, size: networks.Size, metadata: Mapping[str, str]
) -> None:
    """Writes the file; says of images of any size what has no form for them."""
    try:
        format.write(path, network, size, metadata)
    except UserError as error:
        if size is not None:
            raise
        raise OptionError(f"size=any has no form for this model: {error} Give H,W, one file for each size.") from error
    except core.InconclusiveDimensionOperation as error:
        reason = str(error).strip().partition("\n")[0]
        raise OptionError(
            f"size=any has no form for this model: JAX cannot trace it ({reason}). Give H,W, one file for each size."
        ) from error


def _check_output(output: pathlib.Path) -> None:
    if output.name in (model_card_text.NAME, zoo.NAME):
        raise OptionError(f"output={str(output)!r} is the name of what describes the file. Give another name.")
    if not output.parent.is_dir():
        raise OptionError(f"output={str(output)!r}: the folder {str(output.parent)!r} does not exist. Create it first.")
    if output.exists():
        raise OptionError(f"output={str(output)!r} exists already. Give another name, or remove it.")


def _check_absent(folder: pathlib.Path, names: Sequence[str]) -> None:
    if existing := ", ".join(name for name in names if (folder / name).exists()):
        raise OptionError(
            f"output is to be in {str(folder)!r}, which has {existing} of another file. Choose another folder, or"
            " remove them."
        )


def _metadata(card: Mapping[str, Any]) -> dict[str, str]:
    kept = (
        "method",
        "class_names",
        "preprocessing",
        "reading",
        "normalization",
        "foreground_threshold",
        "state_digest",
    )
    kept += ("background_classes",) if card["background_classes"] else ()
    return {name: value if isinstance(value := card[name], str) else strict_json.dumps(value) for name in kept}


def _write_card(
    workdir: pathlib.Path,
    output: pathlib.Path,
    model: predictor.Predictor,
    written: Mapping[str, Any],
    size: networks.Size,
    licence: str,
) -> None:
    """Writes MODEL_CARD.md, or adds the file to it."""
    tested = model_card.complete(json.loads((workdir / model_card.CARD).read_text()))
    text = model_card_text.describe(
        workdir.resolve().name,
        model.card,
        method=model.method,
        tested=tested,
        results=results.read(workdir),
        licence=licence,
    )
    kind = f"ONNX, opset {OPSET}"
    if "guaranteed_until" in written:
        kind = f"StableHLO; {stablehlo.explain(written)}"
    differences = ", ".join(f"{name} {difference:.1g}" for name, difference in written["differences"].items())
    sides = "H, W" if size is None else f"{size[0]}, {size[1]}"
    row = (output.name, kind, f"[B, {sides}, 3]", model_card_text.describe_choices(model.card), differences)
    with disk.in_turn(output.parent):  # another file may be added to the card at the same time
        model_card_text.write(output.parent, text, row)
