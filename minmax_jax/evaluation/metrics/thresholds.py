"""F1+ and F1- at other thresholds than the fixed one, from the histograms of `metrics.pixel_curve`.

A threshold chosen on validation images needs their masks; the best one for the evaluated images is an oracle, never a
result. Both maximise the mean of F1+ and F1-.
"""

from collections.abc import Sequence

import numpy as np

from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row
from minmax_jax.evaluation.metrics import pixel_curve

_NAMES = ("f1_foreground", "f1_background")


def f1_curves(histograms: np.ndarray) -> np.ndarray:
    """[2, N, NUM_BINS] F1+ and F1- in percent of each image, a pixel being foreground if its bin is k or more.

    Args:
        histograms: [N, 2, NUM_BINS], as of `pixel_curve.histogram`. Where both masks are empty, the value is NaN.
    """
    background, foreground = np.moveaxis(np.asarray(histograms, float), 1, 0)
    hits = np.cumsum(foreground[:, ::-1], axis=1)[:, ::-1]
    false = np.cumsum(background[:, ::-1], axis=1)[:, ::-1]
    misses, rest = hits[:, :1] - hits, false[:, :1] - false
    with np.errstate(invalid="ignore"):
        return np.stack([200 * right / (2 * right + false + misses) for right in (hits, rest)])


def best_threshold(rows: Sequence[Row]) -> float | None:
    """The threshold of the maximum mean of F1+ and F1-; None if no image has a true mask."""
    curves = _curves(rows)
    if not curves.shape[1]:
        return None
    return float(np.argmax(mean_over_images(curves).sum(axis=0))) / pixel_curve.NUM_BINS


def mean_over_images(curves: np.ndarray) -> np.ndarray:
    """[2, NUM_BINS] means of [2, N, NUM_BINS] curves, of which NaN does not count; 0 where there is nothing else."""
    known = ~np.isnan(curves)
    return np.nansum(curves, axis=1) / np.maximum(known.sum(axis=1), 1)


def at_threshold(rows: Sequence[Row], threshold: float) -> dict[str, Metric]:
    """F1+ and F1- at a threshold that the validation images chose.

    Args:
        rows: of the images.
        threshold: as of `best_threshold`.
    """
    curves = _curves(rows, all_rows=True)[:, :, round(threshold * pixel_curve.NUM_BINS)]
    return {
        f"{name}_validated": Metric(evaluators.mean_of_known(values), "%", "validation")
        for name, values in zip(_NAMES, curves)
    }


def _curves(rows: Sequence[Row], *, all_rows: bool = False) -> np.ndarray:
    """[2, N, NUM_BINS] of the images with a true mask, or of all, of which the others are NaN."""
    empty = np.zeros((2, pixel_curve.NUM_BINS))
    found = [empty if row["histogram"] is None else row["histogram"] for row in rows]
    if not all_rows:
        found = [histogram for histogram, row in zip(found, rows) if row["histogram"] is not None]
    return f1_curves(np.reshape(found, (len(found), 2, pixel_curve.NUM_BINS)))


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    curves = _curves(rows, all_rows=True)
    known, values = (~np.isnan(curves)).astype(float), np.nan_to_num(curves)

    @evaluators.shared
    def best(weights):
        with np.errstate(invalid="ignore"):
            means = [(weights @ values[i]) / (weights @ known[i]) for i in range(2)]
        chosen = np.argmax(np.nan_to_num(means[0]) + np.nan_to_num(means[1]), axis=1)
        return [mean[np.arange(len(weights)), chosen] for mean in means]

    return {
        f"{name}_best": Metric(lambda weights, which=which: best(weights)[which], "%", "oracle")
        for which, name in enumerate(_NAMES)
    }


EVALUATOR = Evaluator(score=lambda prediction, truth: {}, metrics=_metrics)
