"""How well a predicted mask covers the true one."""

import numpy as np


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    """2 |P and Q| / (|P| + |Q|) of two [H, W] masks; NaN where both are empty.

    F1+ is the Dice of the foreground, F1- that of the complements.
    """
    total = np.count_nonzero(predicted) + np.count_nonzero(true)
    if total == 0:
        return float("nan")
    return 2 * np.count_nonzero(predicted & true) / total


# What an image counts whose masks are both empty, 0 / 0: nothing, 1, or NaN, which spoils the mean on purpose.
EMPTY_POLICIES = ("skip", "one", "nan")


def mean_score(scores: np.ndarray, *, empty: str = "skip") -> float:
    """Mean of [N] scores of images, of which some may be NaN.

    Raises:
        ValueError: for an unknown policy.
    """
    if empty not in EMPTY_POLICIES:
        raise ValueError(f"empty={empty!r} must be one of {EMPTY_POLICIES}.")
    missing = np.isnan(scores)
    if empty == "one":
        scores = np.where(missing, 1.0, scores)
    elif empty == "skip":
        scores = scores[~missing]
    return float(np.mean(scores)) if len(scores) else float("nan")
