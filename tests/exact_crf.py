"""The CRF of `minmax_jax.refinement.crf` in NumPy, with both kernels summed over all pairs of pixels: the reference."""

from collections.abc import Callable
import functools

import numpy as np

_BLOCK = 64  # pixels whose pairs are in memory together


def refine(masks: np.ndarray, images: np.ndarray, *, crf) -> np.ndarray:
    """[B, H, W, 1] refined masks, of soft masks [B, H, W, 1] and images [B, H, W, 3] uint8."""
    return np.stack([_refine_one(mask[..., 0], image, crf) for mask, image in zip(masks, images)])[..., None]


def _refine_one(mask: np.ndarray, image: np.ndarray, crf) -> np.ndarray:
    places, colors = np.indices(mask.shape).reshape(2, -1), image.reshape(-1, 3).T.astype(float)
    gaussian = _normalized(places / crf.gaussian_sigma)
    bilateral = _normalized(np.concatenate([places / crf.bilateral_sigma, colors / crf.color_sigma]))
    clipped = np.clip(mask.ravel().astype(float), 1e-5, 1 - 1e-5)
    log_odds = unary = np.log(clipped) - np.log1p(-clipped)
    for _ in range(crf.num_iterations):
        signs = np.tanh(log_odds / 2)
        log_odds = unary + crf.gaussian_weight * gaussian(signs) + crf.bilateral_weight * bilateral(signs)
    return (1 / (1 + np.exp(-log_odds))).reshape(mask.shape)


def _normalized(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The product with D^-1/2 K D^-1/2, K = exp(-|f_i - f_j|^2 / 2) of features [F, N], D its row sums."""
    multiply = functools.partial(_multiply, features.astype(np.float32))
    scale = multiply(np.ones(features.shape[1])) ** -0.5
    return lambda values: scale * multiply(scale * values)


def _multiply(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    parts = []
    for start in range(0, features.shape[1], _BLOCK):
        block = features[:, start : start + _BLOCK]
        distances = sum((row[:, None] - all_rows) ** 2 for row, all_rows in zip(block, features))
        parts.append(np.exp(-0.5 * distances) @ values)
    return np.concatenate(parts)
