"""Seeds: the pixels of a training image that the first stage is taken at its word for.

New ones are drawn in each step. Single pixels may be wrong; over many steps and images the decoder learns what most of
them have in common.
"""

import numpy as np


def cumulative_foreground(masks: np.ndarray, valid: np.ndarray, *, power: float) -> np.ndarray:
    """Distribution of the foreground's seeds: in proportion to (m - min m)^power.

    Args:
        masks: [N, h, w] soft masks of the first stage.
        valid: [N, h, w] bool, the pixels that belong to the images.
        power: of the mask above its minimum; the greater, the more certain and the less diverse are the seeds.

    Returns:
        [N, h w] cumulative probabilities.

    Example:
        In proportion to the squares of 0, 1 and 2: 0, 1 / 5 and 4 / 5.

        >>> import numpy as np
        >>> from minmax_jax.refinement import seeds
        >>> masks = np.array([[[0.0, 0.25, 0.5]]])
        >>> print(seeds.cumulative_foreground(masks, np.ones(masks.shape, bool), power=2.0))
        [[0.  0.2 1. ]]
    """
    masks = np.asarray(masks, np.float64)  # powers of small differences are 0 in single precision
    minimum = np.min(masks, axis=(1, 2), keepdims=True, where=valid, initial=np.inf)
    return _cumulative(np.where(valid, np.maximum(masks - minimum, 0) ** power, 0), valid)


def cumulative_background(masks: np.ndarray, valid: np.ndarray, *, share: float) -> np.ndarray:
    """Distribution of the background's seeds: uniform over the `share` of the pixels with the lowest values.

    Args:
        masks: as of `cumulative_foreground`.
        valid: as of `cumulative_foreground`.
        share: in (0, 1).

    Returns:
        [N, h w] cumulative probabilities.

    Example:
        Each of the two minimum of four values is as probable:

        >>> import numpy as np
        >>> from minmax_jax.refinement import seeds
        >>> masks = np.array([[[0.9, 0.1, 0.8, 0.2]]])
        >>> print(seeds.cumulative_background(masks, np.ones(masks.shape, bool), share=0.5))
        [[0.  0.5 0.5 1. ]]
    """
    masks = np.asarray(masks, np.float64)
    limits = [np.quantile(mask[inside], share) for mask, inside in zip(masks, valid)]
    return _cumulative(valid & (masks <= np.reshape(limits, (-1, 1, 1))), valid)


def _cumulative(weights: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Weights as cumulative probabilities; where all are 0, as of a constant mask, each pixel is as probable."""
    weights = weights.reshape(len(weights), -1).astype(np.float64)
    is_empty = ~weights.any(axis=1, keepdims=True)
    cumulative = np.cumsum(np.where(is_empty, valid.reshape(weights.shape), weights), axis=1)
    return (cumulative / cumulative[:, -1:]).astype(np.float32)


def draw(cumulative: np.ndarray, rng: np.random.Generator, *, count: int) -> np.ndarray:
    """Draws pixels with replacement.

    Args:
        cumulative: [N, h w] cumulative probabilities.
        rng: of the choice.
        count: pixels of each image.

    Returns:
        [N, count] int32 indices of pixels, counted along the rows.

    Example:
        The last of three pixels has all of the probability:

        >>> import numpy as np
        >>> from minmax_jax.refinement import seeds
        >>> seeds.draw(np.float32([[0.0, 0.0, 1.0]]), np.random.default_rng(0), count=4).tolist()
        [[2, 2, 2, 2]]
    """
    drawn = [np.searchsorted(row, rng.random(count, np.float32), side="right") for row in cumulative]
    return np.minimum(drawn, cumulative.shape[1] - 1).astype(np.int32)
