"""Expected calibration error of the classes: how far their probabilities are from the share that is right.

Source: Guo et al., ICML 2017, with 15 bins of equal width; of the masks see `metrics.pixel_curve`.
"""

from collections.abc import Sequence

import numpy as np

from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row

_NUM_BINS = 15


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    confidence = np.array([max(row["probabilities"]) for row in rows])
    gaps = np.array([row["predicted"] == row["label"] for row in rows]) - confidence
    # Bins are open to the left, as published: a confidence of 1 is in the last.
    bins = np.clip(np.ceil(confidence * _NUM_BINS).astype(int) - 1, 0, _NUM_BINS - 1)
    in_bin = gaps[:, None] * (bins[:, None] == np.arange(_NUM_BINS))

    def values(weights):
        return 100 * np.abs(weights @ in_bin).sum(-1) / weights.sum(-1)

    return {"class_calibration_error": Metric(values, "%")}


EVALUATOR = Evaluator(score=lambda prediction, truth: {}, metrics=_metrics)
