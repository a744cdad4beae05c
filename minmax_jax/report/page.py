"""`report.html`: one self-contained page about one or several runs, from the files of their folders alone."""

import base64
from collections.abc import Sequence
import importlib.resources
import json
import pathlib
from typing import Any

import jinja2

from minmax_jax.base import disk
from minmax_jax.base.errors import UserError
from minmax_jax.evaluation import comparison
from minmax_jax.method import error_name
from minmax_jax.report import charts, metric_records, tables

NAME = "report.html"
# Name and label of the headline numbers, in this order, then those of the method; those that a run lacks are left out.
_HEADLINE = (
    ("classification_error", "Classification error"),
    ("balanced_error", "Balanced error"),
    ("f1_foreground", "F1+"),
    ("f1_background", "F1-"),
    ("false_foreground_share", "False foreground"),
    ("pxap", "PxAP"),
    ("gt_known_localization", "GT-known localization"),
)
_POLICIES = {
    "fixed": "threshold fixed before training",
    "validation": "threshold chosen on validation masks",
    "oracle": "best threshold for these images: an upper bound",
    "all": "all thresholds",
}


# What the swap test puts in place of an image's mask.
_SWAPS = {"own": "its own", "other": "another image's", "moved": "its own, moved", "random": "random, with its values"}
# Compared image by image.
_PAIRED = ("classification_error", "f1_foreground", "f1_background")


class ReportError(UserError):
    """A folder that no report can be made of."""


def write(folders: Sequence[pathlib.Path]) -> pathlib.Path:
    """Writes the report of runs into the folder of the first, and returns its path.

    Args:
        folders: of finished runs.

    Raises:
        ReportError: for a folder without results.
    """
    runs = [_read_run(folder) for folder in folders]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = importlib.resources.files("minmax_jax.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        runs=runs, comparison=_compare(folders, runs), policies=_POLICIES, swap_labels=_SWAPS
    )
    path = folders[0] / NAME
    with disk.replacing(path) as replacement:
        replacement.write_text(page, encoding="utf-8")
    return path


def _read_run(folder: pathlib.Path) -> dict[str, Any]:
    results = _read_json(folder / "results.json")
    if not results or "metrics" not in results:
        raise ReportError(
            f"{folder} has no results.json with metrics. Finish its training; of a run of an earlier version, delete"
            " results.json and rerun its training command: it is only tested again."
        )
    card = _read_json(folder / "model_card.json")
    # Of images without masks, no metric of masks has a value.
    metrics = {name: metric for name, metric in results["metrics"].items() if metric["value"] is not None}
    records = metric_records.read(folder / "metrics.jsonl")
    curves, gallery = _read_json(folder / "curves.json"), _read_gallery(folder / "gallery")
    scores = results.get("scores", {}).items()
    of_method = [(name, _capital(score["title"])) for name, score in scores if score["kind"] != "class"]
    return {
        "name": folder.resolve().name,
        "results": results,
        "class_names": card.get("class_names", []),
        "background_classes": [
            label
            for label, name in enumerate(card.get("class_names", []))
            if name in card.get("background_classes", [])
        ],
        "headline": [
            (label, metrics[name], tables.describe_trivial(name, results))
            for name, label in (*_HEADLINE, *of_method)
            if name in metrics
        ],
        "metrics": metrics,
        "has_masks": any("baselines" in metric for metric in metrics.values()),
        "classes": tables.read_classes(results, curves),
        "flags": tables.count_flags(metric_records.read(folder / "predictions.jsonl")),
        "training": _draw_training(records, results),
        "charts": _draw_curves(curves),
        "confusion": curves.get("confusion", []),
        "gallery": gallery,
        "has_truth": any(entry["truth"] for entry in gallery),
        "faithfulness": _read_json(folder / "faithfulness.json"),
        "film": _read_film(folder / "film"),
    }


def _read_json(path: pathlib.Path) -> Any:
    # Earlier versions wrote NaN, which no page can show.
    text = path.read_text(encoding="utf-8") if path.exists() else "{}"
    return json.loads(text, parse_constant=lambda name: None)


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def _draw_training(records: list[dict], results: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, chart) of the training: with the terms of the loss and the scores that `results.json` declares."""
    terms, scores = results.get("log_terms", []), results.get("scores", {})
    others = {score["title"]: error_name(name) for name, score in scores.items() if score["kind"] == "class"}

    def series(kind, **names):
        return {
            label: [(r["step"], r.get(name)) for r in records if r["kind"] == kind] for label, name in names.items()
        }

    options = dict(x_label="step", mark=results["step"])
    drawn = [
        (
            "Loss and its terms, training",
            charts.lines(
                series("train", loss="loss", **{name.removesuffix("_loss"): name for name in terms}),
                y_label="nats",
                **options,
            ),
        ),
        (
            "Classification error",
            charts.lines(
                series("train", training="classification_error")
                | series(
                    "validation",
                    validation="classification_error",
                    balanced="balanced_error",
                    **others,
                ),
                y_label="%",
                **options,
            ),
        ),
        *(
            (title, charts.lines(series("validation", **names), y_label=unit, **options))
            for title, unit, names in _group_scores(scores)
        ),
        (
            "Masks, validation",
            charts.lines(
                series(
                    "validation",
                    **{"F1+": "f1_foreground", "F1-": "f1_background", "false foreground": "false_foreground_share"},
                ),
                y_label="%",
                **options,
            ),
        ),
    ]
    return [(title, chart) for title, chart in drawn if chart]


def _group_scores(scores: dict[str, dict[str, str]]) -> list[tuple[str, str, dict[str, str]]]:
    """(title, unit, {label: name}) of a chart for each unit of the method's numbers."""
    numbers = {name: score for name, score in scores.items() if score["kind"] != "class"}
    groups: dict[str, dict[str, str]] = {}
    for name, score in numbers.items():
        groups.setdefault(score["unit"], {})[score["title"]] = name
    return [
        ("Entropies, validation" if unit == "nats" else "Scores of the method, validation", unit, names)
        for unit, names in groups.items()
    ]


def _draw_curves(curves: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, chart) of the test images."""
    if not curves:
        return []
    table, reliability = curves["thresholds"], curves["reliability"]

    def points(x, y):
        return list(zip(table[x], table[y]))

    drawn = [
        (
            "F1 by threshold (only 0.5 was fixed before)",
            charts.lines(
                {"F1+": points("threshold", "f1_foreground"), "F1-": points("threshold", "f1_background")},
                x_label="threshold",
                y_label="%",
                mark=0.5,
            ),
        ),
        (
            "Precision and recall of the pixels",
            charts.lines({"pixels": points("recall", "precision")}, x_label="recall, %", y_label="precision, %"),
        ),
        (
            "Reliability of the classes",
            charts.lines(
                {
                    "share that is right": list(zip(reliability["confidence"], reliability["accuracy"])),
                    "as it should be": [(0, 0), (1, 1)],
                },
                x_label="confidence",
                y_label="accuracy",
            ),
        ),
    ]
    return [(title, chart) for title, chart in drawn if chart]


def _read_gallery(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The images of the gallery, as data that the page holds; none of one that an earlier version wrote."""
    entries = [entry for entry in _read_json(folder / "index.json") or [] if "flags" in entry]
    for entry in entries:
        entry["image"] = _embed(folder / f"{entry['index']}.jpg")
        for layer in ("mask", "outline", "instances"):
            entry[layer] = _embed(folder / f"{entry['index']}_{layer}.png")
        entry["truth"] = _embed(folder / f"{entry['index']}_true.png") if entry["has_truth"] else ""
        scores = entry["f1_foreground"], entry["f1_background"]
        entry["score"] = "" if None in scores else sum(scores)
        entry["is_wrong"] = entry["predicted"] != entry["label"]
    return entries


def _read_film(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The passes of recursive erasing on a few images, as data that the page holds."""
    strips = _read_json(folder / "index.json") or []
    for strip in strips:
        for one_pass in strip["passes"]:
            one_pass["image"] = _embed(folder / f"{one_pass['file']}.jpg")
            one_pass["mask"] = _embed(folder / f"{one_pass['file']}_mask.png")
    return strips


def _embed(path: pathlib.Path) -> str:
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _compare(folders: Sequence[pathlib.Path], runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Means over the runs, and each further run against the first, image by image where they tested the same images."""
    if len(runs) == 1:
        return None
    rows = [
        [row | {"classification_error": float(row["predicted"] != row["label"])} for row in of_run]
        for of_run in (metric_records.read(folder / "predictions.jsonl") for folder in folders)
    ]
    pairs = []
    for run, of_run in zip(runs[1:], rows[1:]):
        try:
            found = {name: comparison.paired(rows[0], of_run, name) for name in _comparable(rows[0], of_run)}
        except UserError as error:
            pairs.append((run["name"], str(error), {}))
        else:
            pairs.append((run["name"], "", found))
    return {"over_seeds": comparison.over_seeds([run["results"] for run in runs]), "pairs": pairs}


def _comparable(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    """The numbers that images of both runs have: without masks, whether the class is right."""
    return [name for name in _PAIRED if all(any(row.get(name) is not None for row in rows) for rows in (first, second))]
