"""Bootstrap intervals of metrics: how far they would vary with other images of the same kind."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Metric

NUM_RESAMPLES = 1000
_LEVEL = 0.95
_BLOCK = 100  # resamples at once: their weights need 8 bytes an image each


def describe(
    metrics: Mapping[str, Metric], num_images: int, *, groups: Sequence[str] = (), seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Value, 95 % interval and policy of each metric, as `results.json` holds them.

    Args:
        metrics: by name.
        num_images: N.
        groups: [N] names, such as patients: whole groups are drawn, since images of one are alike. Empty: images are.
        seed: of the resamples.

    Returns:
        {name: {"value", "low", "high", "unit", "threshold"}}; numbers are None where nothing can be counted.

    Example:
        Half of 100 images have an error; the interval is that of 1000 resamples.

        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation import evaluators, intervals
        >>> error = evaluation.Metric(evaluators.ratio([100.0, 0.0] * 50), "%")
        >>> found = intervals.describe({"error": error}, 100)["error"]
        >>> found["value"], 38 <= found["low"] <= 42, 58 <= found["high"] <= 62
        (50.0, True, True)
    """
    found = values(metrics, num_images)
    drawn = {name: [] for name in metrics}
    for weights in _resample(num_images, groups, seed):
        for name, metric in metrics.items():
            drawn[name].append(metric.values(weights))
    return {
        name: {"value": found[name]}
        | dict(zip(("low", "high"), _interval(np.concatenate(drawn[name]))))
        | {"unit": metric.unit, "threshold": metric.threshold or None}
        for name, metric in metrics.items()
    }


def patients_of(split: dataset.Split) -> list[str]:
    """The `groups` of a split: the patient of each image, or the image itself; [] where no patient is known."""
    return [patient or name for patient, name in zip(split.patients, split.names)]


def values(metrics: Mapping[str, Metric], num_images: int) -> dict[str, float | None]:
    """The value of each metric, each of N images counted once; None where nothing can be counted."""
    found = {name: evaluators.once(metric.values, num_images) for name, metric in metrics.items()}
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def _resample(num_images: int, groups: Sequence[str], seed: int):
    """Blocks [R, N] of how often each image is drawn, NUM_RESAMPLES in all."""
    rng = np.random.default_rng(seed)
    _, group_of = np.unique(groups, return_inverse=True) if len(groups) else (None, np.arange(num_images))
    num_groups = group_of.max() + 1
    for _ in range(NUM_RESAMPLES // _BLOCK):
        counts = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=_BLOCK)
        yield counts[:, group_of].astype(float)


def _interval(values: np.ndarray) -> tuple[float | None, float | None]:
    known = values[~np.isnan(values)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return float(low), float(high)
