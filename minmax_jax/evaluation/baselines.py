"""Masks that know nothing of the image: what any number has to be compared with."""

from collections.abc import Callable

import numpy as np

from minmax_jax.ops.resize import resize_mask

_SHARE = 0.5  # of the image's area, in the box
_NOISE_SIDE = 8  # cells of random patterns, in height and width


def all_ones(size: tuple[int, int]) -> np.ndarray:
    """Every pixel is foreground; PxAP and calibration are those of any constant mask."""
    return np.ones(size, np.float32)


def center_box(size: tuple[int, int]) -> np.ndarray:
    """A box in the middle of the image, with its proportions and half of its area."""
    mask = np.zeros(size, np.float32)
    margins = [round(side * (1 - _SHARE**0.5) / 2) for side in size]
    mask[margins[0] : size[0] - margins[0], margins[1] : size[1] - margins[1]] = 1
    return mask


def random_pattern(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """[H, W] smooth noise, of 8 by 8 cells."""
    return resize_mask(rng.normal(size=(_NOISE_SIDE, _NOISE_SIDE)), size)


def rearrange(mask: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """The values of a [H, W] mask, the highest where the pattern is highest: another place, the same area."""
    rearranged = np.empty(mask.size, mask.dtype)
    rearranged[np.argsort(pattern.ravel(), kind="stable")] = np.sort(mask.ravel())
    return rearranged.reshape(mask.shape)


# By name: (height, width) -> [H, W] mask.
BASELINES: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {"all_ones": all_ones, "center_box": center_box}
