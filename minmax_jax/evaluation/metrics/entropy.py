"""Mean conditional entropies, in nats, of methods that report them."""

from collections.abc import Sequence

import numpy as np

from minmax_jax.evaluation.evaluators import Evaluator, Row

_NAMES = ("foreground_entropy", "background_entropy")


def _summarize(rows: Sequence[Row]) -> dict[str, float]:
    """Means over the images. The entropies of an image are in its row already."""
    return {name: float(np.mean([row[name] for row in rows])) for name in _NAMES if rows and name in rows[0]}


EVALUATOR = Evaluator(score=lambda prediction, truth: {}, summarize=_summarize)
