"""Distance between outlines: the 95th percentile (HD95), and the share within a tolerance (surface Dice).

Sources: Huttenlocher et al. (PAMI 1993) for the Hausdorff distance; Nikolov et al. (JMIR 2021) for the surface Dice.
"""

from collections.abc import Sequence

import numpy as np

from minmax_jax.base import options
from minmax_jax.evaluation import evaluators, objects
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row, Truth
from minmax_jax.evaluation.image_predictions import ImagePrediction

TOLERANCE = 2.0  # pixels
_COLUMNS = ("hd95", "surface_dice")


def evaluator(*, threshold: float = 0.5) -> Evaluator:
    """HD95 in pixels of the true mask, and surface Dice in percent.

    Args:
        threshold: a pixel is foreground where the soft mask is at least this.

    Returns:
        An evaluator whose rows hold both; None without a true mask, and where one of the masks is empty: HD95 then is
        undefined, and surface Dice is 0, or undefined if both are.

    Example:
        A square, and the same square three pixels to the right: no outline is farther away than that.

        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation.metrics import boundary
        >>> true = np.zeros((16, 16), bool)
        >>> true[4:10, 4:10] = True
        >>> prediction = evaluation.ImagePrediction(0, None, np.roll(true, 3, axis=1).astype(np.float32), scores={})
        >>> boundary.evaluator().score(prediction, evaluation.Truth(label=0, mask=true, boxes=np.zeros((0, 4))))["hd95"]
        3.0
    """
    options.check_range("threshold", threshold, 1e-6, 1 - 1e-6)
    return Evaluator(score=lambda prediction, truth: _score(prediction, truth, threshold), metrics=_metrics)


def _score(prediction: ImagePrediction, truth: Truth, threshold: float) -> Row:
    if truth.mask is None:
        return dict.fromkeys(_COLUMNS)
    predicted = prediction.mask_at(truth.mask.shape) >= threshold
    if truth.ignored is not None:  # what is predicted there must not matter
        predicted = np.where(truth.ignored, truth.mask, predicted)
    if not (predicted.any() and truth.mask.any()):
        return {"hd95": None, "surface_dice": 0.0 if predicted.any() or truth.mask.any() else None}
    of_predicted, of_true = objects.outline(predicted), truth.outline
    distances = np.concatenate([of_true.distances[of_predicted.pixels], of_predicted.distances[of_true.pixels]])
    return {"hd95": float(np.percentile(distances, 95)), "surface_dice": float(np.mean(distances <= TOLERANCE))}


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    return {
        "hd95": Metric(evaluators.mean_of_known([row["hd95"] for row in rows]), "pixels", "fixed"),
        "surface_dice": Metric(
            evaluators.mean_of_known([row["surface_dice"] for row in rows], factor=100), "%", "fixed"
        ),
    }
