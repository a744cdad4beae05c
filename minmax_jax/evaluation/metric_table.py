"""The table of all metrics of a split: values, intervals, policies, and what knows nothing scores."""

from collections.abc import Sequence
from typing import Any

from minmax_jax.data import dataset
from minmax_jax.evaluation import baselines, evaluators, intervals
from minmax_jax.evaluation.evaluators import Evaluator, Row
from minmax_jax.evaluation.metrics import thresholds


def describe(
    rows: Sequence[Row],
    split: dataset.Split,
    metrics_of: Sequence[Evaluator],
    *,
    validated_threshold: float | None = None,
) -> dict[str, dict[str, Any]]:
    """The metrics of a split, by name, as `results.json` holds them.

    Args:
        rows: of `evaluate` with `baselines.BASELINES`, one for each image of the split.
        split: the images; where their patients are known, the bootstrap draws patients.
        metrics_of: the evaluators of the rows.
        validated_threshold: the best threshold for the validation images, if they have masks.

    Returns:
        {name: {"value", "low", "high", "unit", "threshold", "baselines" of metrics of masks}}.
    """
    found = evaluators.measure(rows, metrics_of)
    validated = {} if validated_threshold is None else thresholds.at_threshold(rows, validated_threshold)
    table = intervals.describe(found | validated, len(rows), groups=intervals.patients_of(split))
    for name in validated:
        table[name]["threshold_value"] = validated_threshold
    for baseline in baselines.BASELINES:
        of_baseline = evaluators.measure([row | row["baselines"][baseline] for row in rows], metrics_of)
        of_masks = {name: metric for name, metric in of_baseline.items() if metric.threshold}
        for name, value in intervals.values(of_masks, len(rows)).items():
            table[name].setdefault("baselines", {})[baseline] = value
    return table
