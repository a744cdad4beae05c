"""What a run stands for as one function of images: padding, networks, second stage and its calibration."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax.base.errors import OptionError
from minmax_jax.data import padding, preprocessing
from minmax_jax.export import calibrations
from minmax_jax.method import Score
from minmax_jax.models import vit
from minmax_jax.ops import free_sizes
from minmax_jax.runs.predictor import Predictor

# Images to results by name.
Network = Callable[[jax.Array], dict[str, jax.Array]]
# Results of every model, in the order of files; those of its method follow.
OUTPUTS = ("probabilities", "masks")
# Height and width of images; None: free.
Size = tuple[int, int] | None

MIN_SIDE, MAX_SIDE = preprocessing.MIN_SIDE, 2048  # as `ops.free_sizes` assumes


def output_names(scores: Mapping[str, Score]) -> tuple[str, ...]:
    """The results of the model of a method: `OUTPUTS`, and the method's numbers of an image."""
    return (*OUTPUTS, *(name for name, score in scores.items() if score.kind != "class"))


def create(predictor: Predictor) -> Network:
    """The function that a file holds.

    Args:
        predictor: of the run.

    Returns:
        [B, H, W, 3] float32 images in [-1, 1] to "probabilities" [B, C], "masks" [B, H, W, 1], and the numbers [B] that
        the method declares.
    """
    refine = predictor.card["refine"]
    calibrate = calibrations.CALIBRATIONS[refine["calibration"] if refine["enabled"] else "none"]

    def apply(images):
        prediction = predictor.predict(_pad(images))
        masks = calibrate(_crop(prediction.masks, images.shape[1:3]))
        results = {**prediction.scores, "probabilities": prediction.probabilities, "masks": masks}
        return {name: results[name] for name in output_names(predictor.scores) if name in results}

    return apply


def _pad(images: jax.Array) -> jax.Array:
    """Images [B, H, W, 3], padded by reflection as `padding.pad` does."""
    for axis in (1, 2):
        side = images.shape[axis]
        padded_side = -(-side // padding.MULTIPLE) * padding.MULTIPLE
        before, after = padding.margins(side, padded_side)
        if not free_sizes.is_free(side):
            images = jnp.pad(images, [(before, after) if axis == n else (0, 0) for n in range(4)], mode="reflect")
            continue
        last = jnp.asarray(side - 1, jnp.int32)
        places = jnp.abs(jnp.arange(padded_side, dtype=jnp.int32) - jnp.asarray(before, jnp.int32))
        images = jnp.take(images, last - jnp.abs(last - places), axis=axis, mode="clip")
    return images


def _crop(masks: jax.Array, size: tuple[free_sizes.Size, free_sizes.Size]) -> jax.Array:
    """The part of masks [B, H', W', 1] of padded images that belongs to the images."""
    for axis, side in zip((1, 2), size):
        before, _ = padding.margins(side, masks.shape[axis])
        masks = lax.slice_in_dim(masks, before, before + side, axis=axis)
    return masks


def check_free(card: Mapping[str, Any]) -> None:
    """Raises OptionError for a model whose file needs one size of images, naming what of it does.

    Args:
        card: of the model, with the choices of the file.
    """
    trunk, scales = card["model"]["trunk"], tuple(card["scales"])
    reason = ""
    if trunk in vit.TRUNKS:
        reason = f"trunk={trunk!r} resizes its position embeddings for one size"
    elif scales != (1.0,):
        reason = (
            f"scales={','.join(f'{scale:g}' for scale in scales)} are rounded for one size (scales=1 leaves them out)"
        )
    if reason:
        raise OptionError(f"size=any has no form for this model: {reason}. Give H,W, one file for each size.")


def check_size(size: Size) -> None:
    """Raises OptionError for a size that no file can have."""
    if size is None:
        return
    if len(size) != 2 or not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        given = ",".join(map(str, size))
        raise OptionError(
            f"size={given} must be H,W: two whole numbers of pixels from {MIN_SIDE} to {MAX_SIDE}, or 'any'."
        )
