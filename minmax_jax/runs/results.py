"""The numbers of a finished run, with all that is needed to compare them and to get them again."""

import importlib.metadata
import math
import pathlib
import platform
import subprocess
from typing import Any

import jax
import ml_collections
import numpy as np

_PACKAGES = ("minmax_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")


def collect(
    split: str,
    summary: dict,
    config: ml_collections.ConfigDict,
    *,
    train_labels: np.ndarray,
    step: int,
    state_digest: str,
    wall_seconds: float,
) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        split: name of the split.
        summary: of that split.
        config: of the run.
        train_labels: [N] of the images that trained.
        step: of the selected model.
        state_digest: SHA-256 of the selected model's parameters and statistics.
        wall_seconds: of training and validation, over all starts.
    """
    crf = config.evaluation.crf.to_dict()
    return {
        split: _without_nan(summary),
        "trained_on": _describe_choice(train_labels, config.data),
        "selection": config.evaluation.selection,
        "threshold": {"policy": "fixed", "value": config.evaluation.threshold},
        "flips": config.evaluation.flips,
        "empty_masks": config.evaluation.empty,
        **({"crf": crf} if crf["enabled"] else {}),
        "seed": config.seed,
        "step": step,
        "state_digest": state_digest,
        "environment": environment() | {"wall_seconds": round(wall_seconds, 1)},
    }


def _describe_choice(labels: np.ndarray, data: ml_collections.ConfigDict) -> dict[str, Any]:
    """How many images trained, and how they were chosen."""
    counts = np.bincount(labels)
    return {
        "num_images": len(labels),
        "images_per_class": {"least": int(counts.min()), "greatest": int(counts.max())},
    } | {name: data[name] for name in ("train_fraction", "train_per_class", "num_train", "subset_seed")}


def _without_nan(value: Any) -> Any:
    """NaN is no JSON; null says as much."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


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
    """Of the checkout that this file lies in, if it is one; with a plus if it was changed since."""
    command = [
        "git",
        "-C",
        str(pathlib.Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty=+",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def describe(results: dict, split: str = "test") -> str:
    """The numbers of a split in a few lines."""
    summary = results[split]
    baseline = summary["baselines"]["all_ones"]
    refined = ", masks refined by the CRF" if "crf" in results else ""

    def number(value, form=".2f"):
        return "-" if value is None else format(value, form)

    without = summary["num_images"] - summary["num_images_with_mask"]
    without_mask = f" ({without} without a mask count in no F1)" if without else ""
    return (
        f"{split}, {summary['num_images']} images{without_mask}, model of step {results['step']}{refined}:\n"
        f"  classification error   {number(summary['classification_error'])} %"
        f" (localizer {number(summary['localizer_classification_error'])} %)\n"
        f"  F1+ {number(summary['f1_foreground'])} %   F1- {number(summary['f1_background'])} %"
        f"   (all ones: {number(baseline['f1_foreground'])} %, {number(baseline['f1_background'])} %)\n"
        f"  entropy, foreground {number(summary['entropy_foreground'], '.3f')}"
        f"   background {number(summary['entropy_background'], '.3f')} nats"
    )
