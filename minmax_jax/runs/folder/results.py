"""The results of a run: its numbers with everything needed to compare and to reproduce them."""

from collections.abc import Sequence
import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from typing import Any

import jax
import numpy as np

from minmax_jax.base import disk, strict_json
from minmax_jax.evaluation import selection
from minmax_jax.method import Method, error_name
from minmax_jax.runs.building.groups import DataOptions
from minmax_jax.runs.building.options import RunOptions

_PACKAGES = ("minmax_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")


# What the swap test puts in place of a mask.
_MASKS = {"other": "another image's", "moved": "its own moved", "random": "a random one"}


def collect(
    split: str,
    summary: dict,
    options: RunOptions,
    *,
    method: Method,
    train_labels: np.ndarray,
    step: int,
    state_digest: str,
    wall_seconds: float,
) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        split: name of the split.
        summary: of that split.
        options: of the run.
        method: of the run.
        train_labels: [N] of the training images.
        step: of the selected model.
        state_digest: SHA-256 of the selected model's parameters and statistics.
        wall_seconds: of training and validation, over all starts.
    """
    evaluation, refine = options.evaluation, options.refine
    return {
        split: strict_json.finite(summary),
        "method": options.method,
        "log_terms": list(method.log_terms),
        "scores": {name: score.describe() for name, score in method.scores.items()},
        "trained_on": describe_training_data(train_labels, options.data),
        "selection": evaluation.selection,
        # Whether no mask and no prior about masks was used, neither to train nor to select.
        "label_only": evaluation.selection != selection.USES_MASKS and not (refine.enabled and refine.prior),
        "threshold": {"policy": "fixed", "value": evaluation.threshold},
        "flips": evaluation.flips,
        "scales": list(evaluation.scales),
        **({"refine": strict_json.plain(dataclasses.asdict(refine))} if refine.enabled else {}),
        **({"prior": refine.prior} if refine.enabled and refine.prior else {}),
        "seed": options.seed,
        "step": step,
        "state_digest": state_digest,
        "environment": environment() | {"wall_seconds": round(wall_seconds, 1)},
    }


def describe_training_data(labels: np.ndarray, data: DataOptions) -> dict[str, Any]:
    """Number of training images, and how they were chosen."""
    counts = np.bincount(labels)
    return {
        "num_images": len(labels),
        # These two keys are those of older cards.
        "images_per_class": {"least": int(counts.min()), "greatest": int(counts.max())},
    } | {
        name: getattr(data, name)
        for name in ("train_fraction", "train_per_class", "num_train", "subset_seed", "permute_labels")
    }


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The content of a run's `results.json`, {} if there is none: a model may have been moved without it."""
    path = folder / "results.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_rows(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a line of JSON per image; numbers that are undefined (NaN) become null.

    Histograms and curves of single images, and what baselines score, are left out.
    """
    kept = ({name: value for name, value in row.items() if _is_kept(name, value)} for row in rows)
    with disk.replacing(path) as replacement:
        replacement.write_text("".join(strict_json.dumps(row) + "\n" for row in kept))


def _is_kept(name: str, value: Any) -> bool:
    return name != "baselines" and not isinstance(value, np.ndarray)


def environment() -> dict[str, Any]:
    """Versions, devices and commit."""
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout that this file is part of, if any; with a plus if files were changed."""

    def git(*arguments):
        command = ["git", "-C", str(pathlib.Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # an installed copy may be inside of another project's checkout
        return git("describe", "--always", "--abbrev=40", "--dirty=+")
    except (OSError, subprocess.SubprocessError):
        return None


def describe_diagnosis(summary: dict) -> str:
    """The swap test in one sentence."""
    others = ", ".join(f"{summary[kind]['probability']:.2f} through {text}" for kind, text in _MASKS.items())
    return f"the class has probability {summary['own']['probability']:.2f} through an image's own mask, {others}."


def describe(results: dict, split: str = "test") -> str:
    """The numbers of a split in a few lines."""
    summary = results[split]
    refined = ", masks refined by the second stage" if "refine" in results else ""
    refined += f" from the prior {results['prior']!r}, not from labels alone" if "prior" in results else ""
    refined += ", masks refined by the CRF" if "crf" in results else ""

    def number(value, form=".2f"):
        return "-" if value is None else format(value, form)

    def interval(name):
        found = results.get("metrics", {}).get(name, {})
        return f" ({found['low']:.1f} to {found['high']:.1f})" if found.get("low") is not None else ""

    majority = ""
    if "majority_class" in results:
        always = results["majority_class"]
        majority = f"   (always {always['class']!r}: {always['classification_error']:.2f} %)"

    scores = results.get("scores", {})

    def error():
        others = "".join(
            f" ({score['title']} {number(summary[error_name(name)])} %)"
            for name, score in scores.items()
            if error_name(name) in summary
        )
        return f"{number(summary['classification_error'])} %{interval('classification_error')}{others}{majority}"

    def means():
        shown = [
            f"{score['title']} {number(summary[name], '.3f')} {score['unit']}".rstrip()
            for name, score in scores.items()
            if name in summary
        ]
        return "\n  " + "   ".join(shown) if shown else ""

    def balanced():
        if "balanced_error" not in summary:  # of an earlier version
            return ""
        return f"\n  balanced error         {number(summary['balanced_error'])} %{interval('balanced_error')}"

    of_background = summary.get("num_images_without_region", 0)

    def masks():
        false = ""
        if of_background:
            share = f"{number(summary['false_foreground_share'])} %{interval('false_foreground_share')}"
            false = f"\n  false foreground   {share}   ({of_background} images without a region, left out of F1)"
        if not summary["num_images_with_mask"]:
            return f"\n  no image has a true mask: F1 is unknown{false}"
        baseline = summary["baselines"]["all_ones"]
        return (
            f"\n  F1+ {number(summary['f1_foreground'])} %{interval('f1_foreground')}"
            f"   F1- {number(summary['f1_background'])} %{interval('f1_background')}"
            f"   (all foreground: {number(baseline['f1_foreground'])} %, {number(baseline['f1_background'])} %){false}"
        )

    of_objects = summary["num_images"] - of_background
    without = of_objects - summary["num_images_with_mask"]
    without_mask = f" ({without} without a mask, left out of F1)" if 0 < without < of_objects else ""
    swaps = f"\n  swap test: {describe_diagnosis(results['diagnosis'])}" if "diagnosis" in results else ""
    return (
        f"{split}, {summary['num_images']} images{without_mask}, model of step {results['step']}{refined}:\n"
        f"  classification error   {error()}{balanced()}{masks()}{means()}{swaps}"
    )
