"""`MODEL_CARD.md`: what a model is, was trained on and is worth, in words."""

from collections.abc import Mapping
import importlib.resources
import math
import pathlib
from typing import Any

import jinja2

from minmax_jax.base import disk
from minmax_jax.base.errors import OptionError
from minmax_jax.data import readings
from minmax_jax.evaluation import selection
from minmax_jax.method import Method, Score, error_name
from minmax_jax.runs import inference_options
from minmax_jax.runs.folder import results as results_lib

NAME = "MODEL_CARD.md"
# Names in the table and in results.json, in this order, then those of the method; those that a run lacks are left out.
_METRICS = {
    "classification error": "classification_error",
    "balanced error (mean over classes)": "balanced_error",
    "F1+ (Dice of the foreground)": "f1_foreground",
    "F1- (Dice of the background)": "f1_background",
    "F1+ at a validated threshold": "f1_foreground_validated",
    "F1+ at the best threshold": "f1_foreground_best",
    "IoU of the foreground": "iou_foreground",
    "false foreground of classes without a region": "false_foreground_share",
    "PxAP": "pxap",
    "MaxBoxAccV2": "max_box_acc_v2",
    "calibration error of the classes": "class_calibration_error",
    "calibration error of the masks": "mask_calibration_error",
}


def describe(
    name: str,
    card: Mapping[str, Any],
    *,
    method: Method,
    tested: Mapping[str, Any],
    results: Mapping[str, Any],
    licence: str,
) -> str:
    """The text, up to the table of files.

    Args:
        name: of the model.
        card: content of `model_card.json`, with the test-time choices of the file.
        method: whose model it is.
        tested: the card as the run wrote it.
        results: content of `results.json`, {} if there is none.
        licence: of the weights, "" if unknown.
    """
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["cell"] = _cell
    source = importlib.resources.files("minmax_jax.export").joinpath("model_card.md.jinja").read_text(encoding="utf-8")
    is_of_model = results.get("state_digest") == card["state_digest"]
    results = results if is_of_model else {}
    return environment.from_string(source).render(
        name=_cell(name),
        card=card,
        method=method.title or card["method"],
        has_classifier=method.classify is not None,
        outputs=[(name, score.description) for name, score in method.scores.items() if score.kind != "class"],
        supervision=_describe_supervision(card, results),
        start=_cell(card["model"].get("pretrained", "") or "random weights"),
        trained_on=_describe_data(card["trained_on"]),
        masks=_describe_masks(card),
        licence=_cell(licence),
        preprocessing=_describe_preprocessing(card["preprocessing"]),
        reading=_describe_reading(card["reading"]),
        microns=_describe_microns(card),
        log_classes=math.log(len(card["class_names"])),
        num_images=results.get("test", {}).get("num_images"),
        metrics=_table(results.get("metrics", {}), method.scores),
        choices=_describe_tested(card, tested),
        diagnosis=_describe_diagnosis(results),
    )


def _cell(text: str) -> str:
    """Text that stays in a cell of a table, whatever a folder or a class is called."""
    escaped = "".join("\\" + sign if sign in "\\`*_[]<>|" else sign for sign in str(text))
    return " ".join(escaped.split())


def _describe_supervision(card: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    if card["refine"]["enabled"] and card["refine"].get("prior"):
        return (
            f"from class labels of whole images and from the prior {card['refine']['prior']!r} about where objects are"
        )
    if results.get("label_only"):
        return "from class labels of whole images; no mask was used to train or to select it"
    if results.get("selection") == selection.USES_MASKS:
        return "from class labels of whole images, and selected by masks of validation images"
    return "from class labels of whole images"


def _describe_data(trained_on: Mapping[str, Any]) -> str:
    minimum, maximum = trained_on["images_per_class"]["least"], trained_on["images_per_class"]["greatest"]
    each = f"{minimum}" if minimum == maximum else f"{minimum} to {maximum}"
    named = " ".join(_cell(trained_on[name]) for name in ("dataset", "name") if trained_on[name])
    permuted = ", with permuted labels" if trained_on.get("permute_labels") else ""
    return f"{named}: {trained_on['num_images']} images, {each} of each class{permuted}"


def _describe_masks(card: Mapping[str, Any]) -> str:
    if not card["refine"]["enabled"]:
        return "class maps of the localizer"
    calibration = card["refine"]["calibration"]
    return "second stage: a decoder on the frozen trunk" + (
        ""
        if calibration == "none"
        else f", each mask scaled so that {card['foreground_threshold']} is its threshold ({calibration})"
    )


def _describe_preprocessing(preprocessing: Mapping[str, Any]) -> str:
    parts = []
    if preprocessing["stain_normalization"] != "none":
        parts.append(f"stain normalization {preprocessing['stain_normalization']}")
    if preprocessing["scale"] != 1:
        parts.append(f"resized to {preprocessing['scale']:g} of their size")
    if preprocessing["min_side"]:
        parts.append(f"enlarged where the smaller side has fewer than {preprocessing['min_side']} pixels")
    if preprocessing["max_side"]:
        parts.append(f"shrunk where the smaller side has more than {preprocessing['max_side']} pixels")
    return ", ".join(parts) or "at the size that they have"


def _describe_reading(reading: Mapping[str, Any]) -> str:
    parts = []
    if reading["channels"]:
        parts.append(f"channels {', '.join(map(str, reading['channels']))} of the file, counted from 0, were read")
    if reading["intensity"] == "percentiles":
        low, high = readings.PERCENTILES
        parts.append(f"percentiles {low} and {high} of each channel became 0 and 255")
    return f" Before that, {' and '.join(parts)}." if parts else ""


def _describe_microns(card: Mapping[str, Any]) -> str:
    microns = card.get("microns_per_pixel")
    return f" Training images had {microns:g} microns a pixel before they were resized." if microns else ""


def describe_choices(card: Mapping[str, Any]) -> str:
    """Flips, sizes and second stage in words."""
    chosen = inference_options.describe(dict(card))
    flips = " and ".join(axis for axis, is_on in chosen["flips"].items() if is_on)
    scales = ", ".join(f"{scale:g}" for scale in chosen["scales"])
    return f"mirror images: {flips or 'none'}; sizes: {scales}; second stage: {'yes' if chosen['refine'] else 'no'}"


def _describe_tested(card: Mapping[str, Any], tested: Mapping[str, Any]) -> str:
    ours, theirs = describe_choices(card), describe_choices(tested)
    return "" if ours == theirs else f", with other test-time choices than the file ({theirs})"


def _table(metrics: Mapping[str, Any], scores: Mapping[str, Score]) -> list[list[str]]:
    named = _METRICS | {
        f"{score.title}, classification error" if score.kind == "class" else score.title: error_name(name)
        if score.kind == "class"
        else name
        for name, score in scores.items()
    }
    rows = []
    for label, name in named.items():
        metric = metrics.get(name)
        if not metric or metric["value"] is None:
            continue

        def number(value, unit=metric["unit"]):
            return "" if value is None else f"{value:.2f}" if unit == "%" else f"{value:.3f}"

        interval = "" if metric["low"] is None else f"{number(metric['low'])} to {number(metric['high'])}"
        trivial = number(metric.get("baselines", {}).get("all_ones"))
        rows.append(
            [label, f"{number(metric['value'])} {metric['unit']}", interval, metric["threshold"] or "", trivial]
        )
    return rows


def _describe_diagnosis(results: Mapping[str, Any]) -> str:
    diagnosis = results.get("diagnosis")
    if not diagnosis:
        return "Not tested: the swap test needs a classifier that reads masked images, and the results of the run."
    verdict = (
        "Yes: an image's own mask shows the class better than other masks do."
        if diagnosis["has_evidence"]
        else "**No**: other masks showed the class as well. Do not read these masks as the reason for a class."
    )
    return f"{verdict} Swap test of the first stage's masks: {results_lib.describe_diagnosis(dict(diagnosis))}"


def check(folder: pathlib.Path, card: Mapping[str, Any]) -> None:
    """Raises OptionError if the folder holds the card of another model, or of another second stage."""
    path, digests = folder / NAME, (card["state_digest"], card["second_stage_digest"])
    if path.exists() and not all(digest in path.read_text(encoding="utf-8") for digest in digests):
        raise OptionError(
            f"output is to be in {str(folder)!r}, whose {NAME} is that of another model. Choose another folder."
        )


def write(folder: pathlib.Path, text: str, row: tuple[str, ...]) -> None:
    """Writes the card, or adds a file to the one that is there: what people have written into it stays.

    Args:
        folder: of the file.
        text: of `describe`.
        row: of the table of files; the name of the file comes first.
    """
    path = folder / NAME
    lines = (path.read_text(encoding="utf-8") if path.exists() else text).rstrip("\n").splitlines()
    start = f"| `{row[0]}` |"
    lines = [line for line in lines if not line.startswith(start)]
    content = "\n".join([*lines, " | ".join((start.rstrip(" |"), *row[1:])) + " |"]) + "\n"
    with disk.replacing(path) as replacement:
        replacement.write_text(content, encoding="utf-8")
