"""From the localizer's class maps to a soft mask of the region of interest.

Source: arXiv 1907.12934, section 3.1: the class maps, weighted by the class probabilities, enlarged to the image,
scaled to [0, 1], and pushed towards 0 and 1 by a steep sigmoid.
"""

import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax.ops import resize

NORMALIZATIONS = ("image", "batch")
GRADIENTS = ("stop", "flow")
ALIGNMENTS = tuple(resize.ALIGNMENTS)
_LEAST_RANGE = 1e-12


def foreground_masks(
    logits: jax.Array,
    class_maps: jax.Array,
    size: tuple[int, int],
    *,
    sigma: jax.Array | float = 0.5,
    omega: jax.Array | float = 8.0,
    normalization: str = "image",
    gradient: str = "stop",
    alignment: str = "corners",
    axis_name: str | None = None,
) -> jax.Array:
    """M+ = sigmoid(omega (x - sigma)), x the class maps weighted by softmax(logits), enlarged, scaled to [0, 1].

    Args:
        logits: [B, C] scores of the localizer.
        class_maps: [B, h, w, C] its class maps.
        size: (H, W) of the images.
        sigma: the threshold; x = sigma gives 0.5.
        omega: the steepness.
        normalization: range of the minimum and maximum: each "image", or the whole "batch" (published; an
            image's mask then depends on its batch mates).
        gradient: "stop" (published) cuts the gradient at the enlarged map: the classifier's two terms must
            not shape the masks directly, only through a shared trunk. "flow" lets it through.
        alignment: where the enlargement puts a feature of the class maps. "corners" (published): the first and the
            last on the first and the last pixel, which moves those between away from what they saw, by up to one
            output stride less a pixel at the far border. "features": on the pixel that its window was centred on,
            the multiples of the output stride; this holds for trunks, as ours, whose windows are odd and padded
            alike on both sides, and of sizes that `ops.resize` tells.
        axis_name: mapped axis of the devices that share a batch; used by the "batch" normalization.

    Returns:
        [B, H, W, 1] masks, between sigmoid(-omega sigma) and sigmoid(omega (1 - sigma)); of a constant map,
        all sigmoid(-omega sigma).

    Raises:
        ValueError: for an unknown normalization, gradient or alignment.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient={gradient!r} must be one of {GRADIENTS}.")
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment={alignment!r} must be one of {ALIGNMENTS}.")
    weights = jax.nn.softmax(logits)[:, None, None, :]
    maps = jnp.sum(weights * class_maps, axis=-1, keepdims=True)
    maps = resize.resize_bilinear(maps, size, alignment=alignment)
    if gradient == "stop":
        maps = lax.stop_gradient(maps)
    return jax.nn.sigmoid(omega * (_normalize(maps, normalization, axis_name) - sigma))


def _normalize(maps: jax.Array, normalization: str, axis_name: str | None) -> jax.Array:
    """Scales [B, H, W, 1] maps to [0, 1]; a constant map becomes 0."""
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization={normalization!r} must be one of {NORMALIZATIONS}.")
    least = jnp.min(maps, axis=(1, 2, 3), keepdims=True)
    greatest = jnp.max(maps, axis=(1, 2, 3), keepdims=True)
    if normalization == "batch":
        if axis_name is not None:
            # Not pmin and pmax: those have no gradient.
            least, greatest = lax.all_gather((least, greatest), axis_name)
        least, greatest = jnp.min(least), jnp.max(greatest)
    span = greatest - least
    return (maps - least) / jnp.where(span > _LEAST_RANGE, span, 1.0)
