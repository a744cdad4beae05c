"""From the localizer's class maps to a soft mask of the region of interest.

Source: arXiv 1907.12934, section 3.1: the class maps, weighted by the class probabilities, are resized to the image,
scaled to [0, 1], and pushed towards 0 and 1 by a steep sigmoid.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from minmax_jax.base import options as options_lib
from minmax_jax.ops import canvas, resize

NORMALIZATIONS = ("image", "batch")
GRADIENTS = ("stop", "flow")
ALIGNMENTS = tuple(resize.ALIGNMENTS)
RANGES = ("extremes", "percentiles")
_PERCENTILES = (0.05, 0.95)
_MIN_RANGE = 1e-12
_ROUNDING = 8  # units in the last place that resizing may move a constant map by


@dataclasses.dataclass(frozen=True)
class MaskOptions:
    """How class maps become masks; the group `mask` of a configuration. Defaults are published values, except
    `normalization`: "image" makes a mask independent of the other images of its batch.

    Attributes:
        omega: steepness of the sigmoid.
        sigma: threshold of the sigmoid in the first epoch; a scaled map of that value gives a mask of 0.5.
        sigma_growth: change of the threshold per epoch; 0 keeps it constant.
        sigma_limit: the last threshold, where it changes.
        normalization: what the minimum and maximum are taken over: each "image", or the whole "batch" (published;
            the mask of an image then depends on the other images of its batch).
        gradient: "stop" (published) cuts the gradient at the resized map: the classifier's two terms must not shape
            the masks directly, only through a shared trunk. "flow" lets it through.
        flow_epoch: first epoch, from 0, in which the gradient flows; before, it stops.
        alignment: where bilinear resizing puts the features of the class maps. "corners" (published; align_corners)
            puts the first and last on the first and last pixel, which shifts those between by up to one output
            stride less a pixel at the far border. "features" puts each on the centre of its receptive field, the
            multiples of the output stride; this holds for trunks whose windows are odd and padded equally on both
            sides, and for the sizes named in `ops.resize`. "patches" puts each on the centre of its patch, for trunks
            whose patches tile the image (`models.vit`).
        range: what of a map becomes 0 and 1: its "extremes", minimum and maximum (published), or its "percentiles", the
            5th and the 95th, and what lies beyond with them, so that a few pixels do not decide on the whole mask (Choe
            et al., ICCV 2021). Percentiles are those of each image: not for the "batch" normalization.

    Raises:
        OptionError: for an unknown option or a number out of range.

    Example:
        >>> import minmax_jax as mm
        >>> options = mm.masks.MaskOptions(sigma=0.3, sigma_growth=0.1, sigma_limit=0.5)
        >>> [round(float(options.threshold(epoch)), 2) for epoch in (0, 1, 2, 3)]
        [0.3, 0.4, 0.5, 0.5]
    """

    omega: float = 8.0
    sigma: float = 0.5
    sigma_growth: float = 0.0
    sigma_limit: float = 0.5
    normalization: str = "image"
    gradient: str = "stop"
    flow_epoch: int = 0
    alignment: str = "corners"
    range: str = "extremes"

    def __post_init__(self):
        options_lib.check_range("omega", self.omega, 1e-6)
        options_lib.check_choice("normalization", self.normalization, NORMALIZATIONS)
        options_lib.check_choice("range", self.range, RANGES)
        if self.range == "percentiles" and self.normalization != "image":
            raise options_lib.OptionError(
                f"range={self.range!r} is that of each image: set normalization='image', not {self.normalization!r}, or"
                " range='extremes'."
            )
        options_lib.check_choice("gradient", self.gradient, GRADIENTS)
        options_lib.check_range("flow_epoch", self.flow_epoch, 0)
        options_lib.check_choice("alignment", self.alignment, ALIGNMENTS)
        if self.sigma_growth and (self.sigma_limit - self.sigma) * self.sigma_growth <= 0:
            raise options_lib.OptionError(
                f"sigma_growth={self.sigma_growth} must lead from sigma={self.sigma} to sigma_limit={self.sigma_limit}."
            )

    def threshold(self, epoch: jax.Array | int) -> jax.Array | float:
        """sigma in an epoch."""
        if not self.sigma_growth:
            return self.sigma
        bounds = sorted((self.sigma, self.sigma_limit))
        return jnp.clip(self.sigma + self.sigma_growth * epoch, *bounds)


def foreground_masks(
    logits: jax.Array,
    class_maps: jax.Array,
    size: tuple[int, int],
    *,
    options: MaskOptions = MaskOptions(),
    epoch: jax.Array | int = 0,
    background_classes: Sequence[int] = (),
    axis_name: str | None = None,
    sizes: jax.Array | None = None,
) -> jax.Array:
    """M+ = sigmoid(omega (x - sigma)), x the class maps weighted by softmax(logits), resized, scaled to [0, 1].

    Args:
        logits: [B, C], of the localizer.
        class_maps: [B, h, w, C] its class maps.
        size: (H, W) of the images.
        options: threshold, steepness, scaling and alignment.
        epoch: from 0; of the threshold, where it grows.
        background_classes: classes without a region, whose maps are no part of a mask: the softmax is then over the
            others.
        axis_name: mapped axis of the devices that share a batch; used by the "batch" normalization.
        sizes: [B, 2] of the images of a `Canvas`; None: (H, W) for all. Beyond them, masks are 0.

    Returns:
        [B, H, W, 1] masks, between sigmoid(-omega sigma) and sigmoid(omega (1 - sigma)); a constant map gives
        sigmoid(-omega sigma) everywhere.

    Example:
        Class 0 is certain, so that its map alone counts. Scaled to [0, 1] it is 0, 0.5 and 1; sigmoid(8 * 0.5) = 0.98.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> class_maps = jnp.stack([jnp.array([[[1.0, 2.0, 3.0]]]), jnp.zeros((1, 1, 3))], axis=-1)
        >>> masks = mm.masks.foreground_masks(jnp.array([[99.0, 0.0]]), class_maps, (1, 3))
        >>> print(np.asarray(masks[0, 0, :, 0]).round(2))
        [0.02 0.5  0.98]
    """
    if background_classes:
        is_background_class = np.isin(np.arange(logits.shape[-1]), background_classes)
        logits = jnp.where(is_background_class, -jnp.inf, logits)
    weights = jax.nn.softmax(logits)[:, None, None, :]
    maps = jnp.sum(weights * class_maps, axis=-1, keepdims=True)
    in_maps = canvas.at_stride(sizes, -(-size[0] // maps.shape[1]))
    maps = canvas.resize_to(maps, size, in_maps, sizes, alignment=options.alignment)
    if options.gradient == "stop":
        maps = lax.stop_gradient(maps)
    scaled = _normalize(maps, options.normalization, options.range, axis_name, sizes)
    return canvas.clear(jax.nn.sigmoid(options.omega * (scaled - options.threshold(epoch))), sizes)


def is_background(classes: jax.Array, background_classes: Sequence[int]) -> jax.Array:
    """[B] bool, whether each of [B] classes is one of the classes without a region, of which there is at least one.

    Example:
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> print(mm.masks.is_background(jnp.array([0, 1, 2]), (0, 2)))
        [ True False  True]
    """
    return functools.reduce(jnp.logical_or, [classes == background for background in background_classes])


def _normalize(
    maps: jax.Array, normalization: str, range: str, axis_name: str | None, sizes: jax.Array | None
) -> jax.Array:
    """Scales [B, H, W, 1] maps to [0, 1]; a constant map becomes 0."""
    if range == "percentiles":
        minimum, maximum = canvas.quantiles(maps, _PERCENTILES, sizes)
        return jnp.clip(_scale(maps, minimum, maximum), 0, 1)
    minimum, maximum = canvas.extremes(maps, sizes)
    if normalization == "batch":
        if axis_name is not None:
            # Not pmin and pmax: those have no gradient.
            minimum, maximum = lax.all_gather((minimum, maximum), axis_name)
        minimum, maximum = jnp.min(minimum), jnp.max(maximum)
    return _scale(maps, minimum, maximum)


def _scale(maps: jax.Array, minimum: jax.Array, maximum: jax.Array) -> jax.Array:
    span = maximum - minimum
    # A constant map that was resized varies by rounding alone, in proportion to its value.
    rounding = _ROUNDING * jnp.finfo(maps.dtype).eps * jnp.maximum(jnp.abs(minimum), jnp.abs(maximum))
    is_constant = span <= _MIN_RANGE + rounding
    return jnp.where(is_constant, 0.0, maps - minimum) / jnp.where(is_constant, 1.0, span)
