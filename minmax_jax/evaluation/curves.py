"""What a report plots: precision and recall over thresholds, reliability of the classes, and their confusion."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minmax_jax.evaluation.evaluators import Row
from minmax_jax.evaluation.metrics import classification, pixel_curve, thresholds

_NUM_POINTS = 50
_NUM_BINS = 10


def describe(rows: Sequence[Row]) -> dict[str, Any]:
    """JSON values: "thresholds", "reliability" and "confusion".

    Args:
        rows: of a split, with the histograms of `metrics.pixel_curve`.

    Returns:
        "thresholds": lists "threshold", "f1_foreground", "f1_background" (means over images), "precision", "recall" (of
        the pixels of all images), empty without masks; "reliability": lists "confidence", "accuracy", "count" of the
        bins that hold an image; "confusion": [C][C] counts, true classes in rows.
    """
    return {
        "thresholds": _describe_thresholds(rows),
        "reliability": _describe_reliability(rows),
        "confusion": classification.confusion(rows).tolist(),
    }


def _describe_thresholds(rows: Sequence[Row]) -> dict[str, list[float]]:
    names = ("threshold", "f1_foreground", "f1_background", "precision", "recall")
    histograms = [row["histogram"] for row in rows if row["histogram"] is not None]
    if not histograms:
        return {name: [] for name in names}
    chosen = np.linspace(0, pixel_curve.NUM_BINS - 1, _NUM_POINTS).round().astype(int)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = thresholds.mean_over_images(thresholds.f1_curves(np.stack(histograms)))[:, chosen]
        background, foreground = pixel_curve.pooled(rows)
        hits = np.cumsum(foreground[::-1])[::-1][chosen]
        found = hits + np.cumsum(background[::-1])[::-1][chosen]
        columns = (chosen / pixel_curve.NUM_BINS, *f1, 100 * hits / found, 100 * hits / foreground.sum())
    return {name: [None if np.isnan(v) else round(float(v), 4) for v in column] for name, column in zip(names, columns)}


def _describe_reliability(rows: Sequence[Row]) -> dict[str, list[float]]:
    confidence = np.array([max(row["probabilities"]) for row in rows])
    is_right = np.array([row["predicted"] == row["label"] for row in rows])
    bins = np.minimum((confidence * _NUM_BINS).astype(int), _NUM_BINS - 1)
    held = np.unique(bins)
    return {
        "confidence": [round(float(confidence[bins == index].mean()), 4) for index in held],
        "accuracy": [round(float(is_right[bins == index].mean()), 4) for index in held],
        "count": [int(np.sum(bins == index)) for index in held],
    }
