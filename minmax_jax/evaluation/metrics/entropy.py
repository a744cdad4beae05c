"""Mean conditional entropies, in nats and as a share of log C, of methods that report them."""

from collections.abc import Sequence

import numpy as np

from minmax_jax.evaluation import evaluators
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row

_NAMES = ("foreground_entropy", "background_entropy")


def _summarize(rows: Sequence[Row]) -> dict[str, float]:
    """Means over the images. The entropies of an image are in its row already."""
    return {name: float(np.mean([row[name] for row in rows])) for name in _NAMES if rows and name in rows[0]}


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    found = {}
    for name in _NAMES:
        if rows and name in rows[0]:
            values = np.array([row[name] for row in rows])
            uniform = np.log(len(rows[0]["probabilities"]))
            found[name] = Metric(evaluators.ratio(values), "nats")
            found[f"{name}_share"] = Metric(evaluators.ratio(100 * values / uniform), "%")
    return found


EVALUATOR = Evaluator(score=lambda prediction, truth: {}, summarize=_summarize, metrics=_metrics)
