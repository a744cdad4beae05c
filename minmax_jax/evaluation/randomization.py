"""Whether masks depend on what was learned: masks of the same model with randomized weights.

Source: the model parameter randomization test of Adebayo et al. (NeurIPS 2018).

A mask that stays alike when the weights lose their meaning shows edges, colours or the middle of the image, not what
the model knows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from scipy import stats


def randomize(variables: dict[str, Any], is_chosen: Callable[[str], bool], *, seed: int = 0) -> dict[str, Any]:
    """The variables with the numbers of chosen arrays in random order: each array keeps its distribution.

    Args:
        variables: a nested dictionary of arrays.
        is_chosen: path of an array, such as "params/localizer_head/modality_maps/kernel", to whether it is randomized.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)

    def randomize_array(path, array):
        if not is_chosen("/".join(str(key.key) for key in path)):
            return array
        values = np.asarray(array)
        return rng.permutation(values.ravel()).reshape(values.shape)

    return jax.tree_util.tree_map_with_path(randomize_array, variables)


def rank_correlation(mask: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two masks [H, W]; 0 where one is constant, and so says nothing of the other."""
    if np.ptp(mask) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.spearmanr(mask.ravel(), other.ravel()).statistic)


def summarize(masks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> dict[str, float | None]:
    """Mean rank correlation of masks with others of the same images, and its standard error.

    Returns:
        {"rank_correlation", "standard_error" (None for a single image)}.
    """
    found = np.array([rank_correlation(mask, other) for mask, other in zip(masks, others, strict=True)])
    error = float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else None
    return {"rank_correlation": float(found.mean()), "standard_error": error}
