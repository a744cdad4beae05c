"""Objects that are found, fitted and counted: object F1, object Dice, object Hausdorff distance and count error.

Source: the GlaS contest, Sirinukunwattana et al. (Medical Image Analysis 2017). As there, numbers of a split are of the
objects of all its images together; an object is compared with objects of its own image alone. Of an object, its partner
is the object of the other mask that shares most pixels with it, of several the first.

- Object F1 = 2 TP / (number of predicted objects + number of true objects). A predicted object is a true positive if it
  covers at least half of its partner; a true object is found once at most.
- Object Dice = (sum_G |G| Dice(G, partner) / sum_G |G| + sum_P |P| Dice(P, partner) / sum_P |P|) / 2 over all true
  objects G and predicted objects P, with areas |G| and |P|; 0 for an object without a partner.
- Object Hausdorff distance = the same with the Hausdorff distance of the two sets of pixels; the partner of an object
  that overlaps none is the one of minimum distance.
- Count error = mean over images of |number of predicted objects - number of true objects|; the bias is the mean of the
  difference.
"""

from collections.abc import Callable, Sequence

import numpy as np

from minmax_jax.base import options
from minmax_jax.evaluation import evaluators, objects
from minmax_jax.evaluation.evaluators import Evaluator, Metric, Row, Truth
from minmax_jax.evaluation.image_predictions import ImagePrediction

MIN_AREA = 16  # pixels of the true mask, as in predictions of files: less is rarely an object
_MIN_SHARE = 0.5  # of a true object, that its partner covers
_COLUMNS = (
    *("object_f1", "object_dice", "object_hausdorff"),
    *("num_objects", "num_true_objects", "num_found_objects", "object_sums"),
)


def evaluator(*, threshold: float = 0.5, min_area: int = MIN_AREA) -> Evaluator:
    """Metrics of objects, for images with instance annotations.

    Args:
        threshold: a pixel is foreground where the soft mask is at least this.
        min_area: regions of the prediction, connected by eight neighbours, with fewer pixels are no objects. True
            objects all count.

    Returns:
        An evaluator whose rows hold F1 and Dice as shares and the Hausdorff distance in pixels of the true mask, each
        of its image alone, and the numbers of predicted, true and found objects; None without instance ids.
        With neither predicted nor true objects, F1 and Dice are None; with one of these alone they are 0. The Hausdorff
        distance is None unless there are both. "object_sums" [2, 4] is for the split: over true and over predicted
        objects, the sums of area, area times Dice, area if there is a distance, and area times the distance.

    Raises:
        OptionError: for a threshold outside of (0, 1), or an area below one pixel.

    Example:
        One of two objects is found: 2 * 1 / (1 + 2).

        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> from minmax_jax.evaluation.metrics import instances
        >>> numbers = np.zeros((16, 16), np.int32)
        >>> numbers[:5, :5], numbers[10:, 10:] = 1, 2
        >>> truth = evaluation.Truth(label=0, mask=numbers > 0, boxes=np.zeros((0, 4)), instances=numbers)
        >>> prediction = evaluation.ImagePrediction(0, None, (numbers == 2).astype(np.float32), scores={})
        >>> row = instances.evaluator().score(prediction, truth)
        >>> round(row["object_f1"], 2), row["num_objects"], row["num_true_objects"]
        (0.67, 1, 2)
    """
    options.check_range("threshold", threshold, 1e-6, 1 - 1e-6)
    options.check_range("min_area", min_area, 1)
    return Evaluator(score=lambda prediction, truth: _score(prediction, truth, threshold, min_area), metrics=_metrics)


def _score(prediction: ImagePrediction, truth: Truth, threshold: float, min_area: int) -> Row:
    if truth.instances is None:
        return dict.fromkeys(_COLUMNS)
    predicted = prediction.mask_at(truth.instances.shape) >= threshold
    if truth.ignored is not None:  # what is predicted there must not matter
        predicted &= ~truth.ignored
    found, true = objects.connected(predicted, min_area=min_area), truth.objects
    overlaps = objects.overlaps(true, found)
    sums = np.stack([_sum_over(true, found, overlaps), _sum_over(found, true, overlaps.T)])
    row = {
        "num_objects": len(found),
        "num_true_objects": len(true),
        "num_found_objects": _count_found(true, overlaps),
        "object_sums": sums,
    }
    single = {name: evaluators.once(values, 1) for name, values in _functions([row]).items()}
    return {name: None if np.isnan(value) else value for name, value in single.items()} | row


def _count_found(true: objects.Objects, overlaps: np.ndarray) -> int:
    """Number of true objects at least half of which is covered by a predicted object whose partner they are."""
    if not overlaps.size:
        return 0
    partners = overlaps.argmax(axis=0)
    is_hit = overlaps.max(axis=0) >= _MIN_SHARE * true.areas[partners]
    return len(np.unique(partners[is_hit]))


def _sum_over(some: objects.Objects, others: objects.Objects, overlaps: np.ndarray) -> np.ndarray:
    """[4] sums over the objects `some`, as a side of "object_sums"."""
    if not overlaps.size:
        return np.array([some.areas.sum(), 0.0, 0.0, 0.0])
    partners, shared = overlaps.argmax(axis=1), overlaps.max(axis=1)
    dice = 2 * shared / (some.areas + others.areas[partners])
    distances = [
        objects.hausdorff(some, others, (index, partner)) if shared[index] else objects.nearest(some, others, index)
        for index, partner in enumerate(partners)
    ]
    total = some.areas.sum()
    return np.array([total, some.areas @ dice, total, some.areas @ np.array(distances)])


def _functions(rows: Sequence[Row]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """F1 and Dice as shares and the Hausdorff distance, by how often each image counts."""
    hits, found, true = (
        np.array([row[name] or 0 for row in rows], float)
        for name in ("num_found_objects", "num_objects", "num_true_objects")
    )
    sums = np.stack([np.zeros((2, 4)) if row["object_sums"] is None else row["object_sums"] for row in rows])
    return {
        "object_f1": evaluators.ratio(2 * hits, found + true),
        "object_dice": _mean_of_sides(sums[..., 1], sums[..., 0]),
        "object_hausdorff": _mean_of_sides(sums[..., 3], sums[..., 2]),
    }


def _mean_of_sides(sums: np.ndarray, areas: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Mean of true and predicted objects' sum / area, from [N, 2]; 0 for a side without objects, NaN without any."""

    def values(weights):
        weighted_sums, weighted_areas = weights @ sums, weights @ areas
        sides = weighted_sums / np.maximum(weighted_areas, 1)
        return np.where(weighted_areas.any(axis=1), sides.mean(axis=1), np.nan)

    return values


def _metrics(rows: Sequence[Row]) -> dict[str, Metric]:
    if all(row["num_objects"] is None for row in rows):
        return {}
    functions = _functions(rows)
    excess = [None if row["num_objects"] is None else row["num_objects"] - row["num_true_objects"] for row in rows]
    errors = [None if number is None else abs(number) for number in excess]
    return {
        "object_f1": Metric(lambda weights: 100 * functions["object_f1"](weights), "%", "fixed"),
        "object_dice": Metric(lambda weights: 100 * functions["object_dice"](weights), "%", "fixed"),
        "object_hausdorff": Metric(functions["object_hausdorff"], "pixels", "fixed"),
        "count_error": Metric(evaluators.mean_of_known(errors), "objects", "fixed"),
        "count_bias": Metric(evaluators.mean_of_known(excess), "objects", "fixed"),
    }
