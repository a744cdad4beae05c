"""Masks that follow the edges of the image: a dense conditional random field (CRF) as post-processing.

Source: Kraehenbuehl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials", NIPS 2011;
the parameters as arXiv 1907.12934 published them. All pairs of pixels attract each other, by a Gaussian kernel of their
positions p and a bilateral one of positions and colours c,

    k_g(i, j) = exp(-|p_i - p_j|^2 / (2 gaussian_sigma^2)),
    k_b(i, j) = exp(-|p_i - p_j|^2 / (2 bilateral_sigma^2) - |c_i - c_j|^2 / (2 color_sigma^2)),

each normalised symmetrically, D^-1/2 K D^-1/2 with D the row sums; k(i, i) = 1 is part of the sums, as in the
implementations in common use. With two classes and a Potts compatibility mean field is one map of log-odds
l = log(q / (1 - q)), the unary term that of the soft mask M+:

    l <- log(M+ / (1 - M+)) + gaussian_weight K_g (2q - 1) + bilateral_weight K_b (2q - 1),   2q - 1 = tanh(l / 2).

The bilateral kernel is summed over a window, and over a sample of it where it is large: docs/crf.md compares it with
the sum over all pairs.
"""

from collections.abc import Callable
import dataclasses
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from minmax_jax.base import options
from minmax_jax.ops import intensity

# Masks are clipped to [_CLIP, 1 - _CLIP]; those of `masks.foreground_masks` are well within.
_CLIP = 1e-5
_WINDOW = 3.0  # radius of the bilateral kernel that `refine` sums over, in standard deviations
_UNROLLED = 8  # offsets that are summed in one go over the image
_PLASTIC = 1.324717957244746  # its powers distribute points evenly over a plane: Roberts' R2 sequence


@dataclasses.dataclass(frozen=True)
class Crf:
    """Kernels and number of updates of the CRF. Standard deviations of positions are in pixels of the image.

    Attributes:
        num_iterations: mean-field updates; 0 returns the mask unchanged.
        gaussian_sigma: of the Gaussian kernel.
        bilateral_sigma: of the bilateral kernel's positions.
        color_sigma: of its colours, out of 255.
        gaussian_weight: compatibility of the Gaussian kernel; published.
        bilateral_weight: of the bilateral one; published.
        max_offsets: maximum number of offsets that `refine` sums the bilateral kernel over. There are
            28 bilateral_sigma^2 within three standard deviations; if that is more, a sample is taken, denser near the
            centre. Time is proportional to it.

    Raises:
        OptionError: for a number out of range.
    """

    num_iterations: int
    gaussian_sigma: float
    bilateral_sigma: float
    color_sigma: float
    gaussian_weight: float = 3.0
    bilateral_weight: float = 10.0
    max_offsets: int = 5000

    def __post_init__(self):
        options.check_range("num_iterations", self.num_iterations, 0, 1000)
        for field in ("gaussian_sigma", "bilateral_sigma"):
            options.check_range(field, getattr(self, field), 1e-3, 8192)
        options.check_range("color_sigma", self.color_sigma, 1e-3)
        for field in ("gaussian_weight", "bilateral_weight"):
            options.check_range(field, getattr(self, field), 0)
        options.check_range("max_offsets", self.max_offsets, 1)


# From [H, W] values of the pixels to their product with a kernel matrix, [H, W].
_FilterFn = Callable[[jax.Array], jax.Array]


def refine(masks: jax.Array, images: jax.Array, *, crf: Crf) -> jax.Array:
    """Mean field with the bilateral kernel summed over a window; the Gaussian kernel is exact.

    Args:
        masks: [B, H, W, 1] soft foreground masks.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1].
        crf: kernels and number of updates.

    Returns:
        [B, H, W, 1] probabilities of the foreground; 0 of a mask that is 0 everywhere.

    Raises:
        ValueError: if the shapes of masks and images do not match.

    Example:
        A mask that is undecided in one column: the column has the colour of the foreground, so it becomes foreground.

        >>> import jax.numpy as jnp
        >>> from minmax_jax.refinement import crf
        >>> masks = jnp.tile(jnp.array([0.9, 0.9, 0.5, 0.1, 0.1, 0.1]), (4, 1)).reshape(1, 4, 6, 1)
        >>> images = jnp.where(jnp.arange(6)[:, None] < 3, 255, 0).astype(jnp.uint8) * jnp.ones((1, 4, 6, 3), jnp.uint8)
        >>> options = crf.Crf(num_iterations=5, gaussian_sigma=1.0, bilateral_sigma=2.0, color_sigma=10.0)
        >>> print((crf.refine(masks, images, crf=options)[0, 0, :, 0] > 0.5).astype(int))
        [1 1 1 0 0 0]
    """
    if images.ndim != 4 or images.shape[3] != 3 or masks.shape != (*images.shape[:3], 1):
        raise ValueError(f"masks are {masks.shape}, images {images.shape}; give [B, H, W, 1] and [B, H, W, 3].")

    def refine_one(pair):
        mask, image = pair
        colors = 127.5 * intensity.normalize(image).astype(jnp.float32)
        gaussian, bilateral = _separable_filter(mask.shape, crf), _window_filter(colors, crf)
        is_empty = jnp.all(mask == 0)  # that of a class without a region: there is nothing to refine
        mask = jnp.clip(mask.astype(jnp.float32), _CLIP, 1 - _CLIP)
        unary = jnp.log(mask) - jnp.log1p(-mask)

        def update(_, log_odds):
            signs = jnp.tanh(log_odds / 2)
            return unary + crf.gaussian_weight * gaussian(signs) + crf.bilateral_weight * bilateral(signs)

        refined = jax.nn.sigmoid(lax.fori_loop(0, crf.num_iterations, update, unary))
        return jnp.where(is_empty, 0, refined)

    return lax.map(refine_one, (masks[..., 0], images))[..., None]


def _normalize(filter_fn: _FilterFn, shape: tuple[int, int]) -> _FilterFn:
    """D^-1/2 K D^-1/2 instead of K."""
    scale = lax.rsqrt(filter_fn(jnp.ones(shape, jnp.float32)))
    return lambda values: scale * filter_fn(scale * values)


def _separable_filter(shape: tuple[int, int], crf: Crf) -> _FilterFn:
    """The Gaussian kernel, separable: a matrix for the rows times one for the columns."""

    def matrix(side):
        distances = np.subtract.outer(np.arange(side), np.arange(side))
        kernel = np.exp(-(distances**2) / (2 * crf.gaussian_sigma**2))
        scale = np.sum(kernel, axis=1) ** -0.5
        return (scale[:, None] * kernel * scale).astype(np.float32)

    rows, columns = map(matrix, shape)
    return lambda values: jnp.einsum("hy,yx,xw->hw", rows, values, columns, precision=lax.Precision.HIGHEST)


def _window_filter(colors: jax.Array, crf: Crf) -> _FilterFn:
    """The bilateral kernel, one offset after another.

    The image is one vector, its rows separated by as many zeros as the window has radius, so that an offset in the
    plane is an offset in the vector: XLA compiles slices of a vector to fast code, but not those of a matrix.
    """
    height, width = colors.shape[:2]
    offsets, log_weights = _window(crf.bilateral_sigma, crf.max_offsets)
    gap = int(np.max(offsets))
    stride = width + gap
    size, margin = height * stride, gap * stride + gap
    starts = margin + offsets @ np.array([stride, 1], np.int32)

    def flatten(values):
        return jnp.pad(jnp.pad(values, ((0, 0), (0, gap))).reshape(-1), margin)

    channels = [flatten(colors[..., k] / (math.sqrt(2) * crf.color_sigma)) for k in range(3)]
    centers = [channel[margin : margin + size] for channel in channels]

    def filter_fn(values):
        values = flatten(values)

        def add(total, offset):
            start, exponent = offset
            for center, channel in zip(centers, channels):
                exponent -= (center - lax.dynamic_slice(channel, (start,), (size,))) ** 2
            return total + jnp.exp(exponent) * lax.dynamic_slice(values, (start,), (size,)), None

        total, _ = lax.scan(
            add, jnp.zeros(size, jnp.float32), (starts, log_weights.astype(np.float32)), unroll=_UNROLLED
        )
        return total.reshape(height, stride)[:, :width]

    return _normalize(filter_fn, (height, width))


def _window(sigma: float, max_offsets: int) -> tuple[np.ndarray, np.ndarray]:
    """[K, 2] offsets (dy, dx) with their negatives, and [K] logarithms of their weights; the centre is the first.

    If there are more than `max_offsets`, an offset of Gaussian weight g is kept where a number u, evenly distributed
    over (0, 1), is less than t g, with the weight max(g, 1 / t) instead of g: unbiased over u.
    """
    radius = int(_WINDOW * sigma)
    dy, dx = np.mgrid[: radius + 1, -radius : radius + 1].reshape(2, -1)
    is_half = ((dy > 0) | (dx > 0)) & (dy**2 + dx**2 <= (_WINDOW * sigma) ** 2)
    dy, dx = dy[is_half], dx[is_half]
    gaussian = np.exp(-(dy**2 + dx**2) / (2 * sigma**2))
    thresholds = (dy / _PLASTIC + dx / _PLASTIC**2) % 1 / gaussian
    order = np.argsort(thresholds)
    count = (max_offsets - 1) // 2
    minimum = 0.0 if count >= len(order) else 1 / thresholds[order[count]]
    taken = order[:count]
    half = np.stack([dy[taken], dx[taken]], axis=-1)
    log_weights = np.log(np.maximum(gaussian[taken], minimum))
    return (
        np.concatenate([np.zeros((1, 2), int), half, -half]).astype(np.int32),
        np.concatenate([np.zeros(1), log_weights, log_weights]).astype(np.float32),
    )
