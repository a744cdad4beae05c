"""Masks of training images by recursive erasing at inference: the label is known, and asks for what is left of it.

As in `minmax_jax.erasing`, each pass hides what the passes before found and is trusted by its confidence, here in the
true class; nothing is trained, and no pass stops because its loss grew, which after the first it nearly always does.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax.method import Prediction
from minmax_jax.ops import intensity


def accumulate_masks(
    variables: dict[str, Any],
    batch: dict[str, jax.Array],
    *,
    predict: Callable[[dict[str, Any], jax.Array], Prediction],
    num_erasures: int,
) -> jax.Array:
    """The greatest value of each pixel over the passes, each pass after the first times its trust.

    Args:
        variables: of the method.
        batch: "images" [B, H, W, 3], uint8 or in [-1, 1], and "labels" [B].
        predict: of the method.
        num_erasures: R, passes after the first; 0 gives the masks of the first alone.

    Returns:
        [B, H, W, 1] masks in [0, 1].
    """
    images = intensity.normalize(batch["images"])
    first = predict(variables, images).masks
    if not num_erasures:
        return first  # a scan compiles its body even for no pass

    def one_pass(masks, _):
        prediction = predict(variables, images * (1 - masks))
        trust = jnp.take_along_axis(prediction.probabilities, batch["labels"][:, None], axis=1)
        return jnp.maximum(masks, trust[:, :, None, None] * prediction.masks), None

    return lax.scan(one_pass, first, length=num_erasures)[0]
