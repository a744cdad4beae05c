"""How far the tiles of a large image are believed, and what they say together.

The mask of a tile is scaled by the range of its own class maps: something becomes foreground, also in a tile without an
object. Such a tile is known by the classifier, which training made uncertain where there is no object.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from minmax_jax.evaluation import trust
from minmax_jax.method import NO_SCORES, Prediction, Score

_MIN_WEIGHT = 1e-6  # of weights, so that there is a mean


def confidence(probabilities: np.ndarray) -> float:
    """1 - H(p) / log C of probabilities [C]: 1 if one is certain, 0 if all are equal."""
    positive = probabilities[probabilities > 0]
    return float(1 + np.sum(positive * np.log(positive)) / np.log(len(probabilities)))


def fading(probabilities: np.ndarray) -> float:
    """The factor of a tile's mask: below 1 where its region does not identify a class, by the limit of the flags."""
    return min(1.0, max(0.0, confidence(probabilities) / (1 - trust.MAX_ENTROPY)))


def combine(
    answers: Sequence[Prediction],
    shares: Sequence[float],
    *,
    declared: Mapping[str, Score] = NO_SCORES,
) -> tuple[np.ndarray, dict[str, float]]:
    """Probabilities [C] and scores of the image: means over the tiles, weighted by confidence times foreground.

    Args:
        answers: of the tiles: probabilities [C] and scores.
        shares: of the foreground in each tile, in the mask of the image; where there is none, confidence is the weight.
        declared: scores of the method; of one that is a class, the image has the one with the most weight.
    """
    confidences = np.array([max(confidence(answer.probabilities), _MIN_WEIGHT) for answer in answers])
    weights = confidences * shares if any(shares) else confidences
    scores = {
        name: float(np.average([answer.scores[name] for answer in answers], weights=weights))
        for name in answers[0].scores
    }
    for name in scores:
        if name in declared and declared[name].kind == "class":
            scores[name] = int(np.argmax(np.bincount([int(answer.scores[name]) for answer in answers], weights)))
    return np.average([answer.probabilities for answer in answers], axis=0, weights=weights), scores
