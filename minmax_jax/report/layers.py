"""Pictures to lay over an image: soft masks, outlines, and instances, transparent elsewhere."""

import colorsys
import pathlib

import numpy as np
from PIL import Image
from scipy import ndimage

from minmax_jax.evaluation import objects
from minmax_jax.evaluation.metrics import instances

PREDICTED_COLOR, TRUE_COLOR = (255, 212, 0), (0, 213, 255)
_SIDE = 256  # pixels of the larger side
_OUTLINE_WIDTH = 2  # pixels, after shrinking
_GOLDEN_RATIO = 0.618034  # steps of it spread hues evenly, however many there are


def tint(mask: np.ndarray, color: tuple[int, int, int] = PREDICTED_COLOR) -> np.ndarray:
    """[H, W, 4] uint8: a colour, as opaque as the mask [H, W] is great."""
    alpha = np.round(255 * np.asarray(mask, np.float32)).astype(np.uint8)
    return np.dstack([np.broadcast_to(np.array(color, np.uint8), (*mask.shape, 3)), alpha])


def draw_outlines(predicted: np.ndarray, true: np.ndarray | None) -> np.ndarray:
    """[h, w, 4] uint8, shrunk: outlines of the true mask, if there is one, and of the predicted one on top.

    Args:
        predicted: [H, W] bool.
        true: [H', W'] bool, or None.
    """
    picture = np.zeros((*_shrunk(predicted.shape), 4), np.uint8)
    for mask, color in ((true, TRUE_COLOR), (predicted, PREDICTED_COLOR)):
        if mask is not None:
            small = np.asarray(_resize(np.uint8(255) * mask, picture.shape[:2])) >= 128
            # Beyond the border is background: an outline closes there.
            rim = small & ~ndimage.binary_erosion(small, iterations=_OUTLINE_WIDTH)
            picture[rim] = (*color, 255)
    return picture


def draw_instances(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """[H, W, 4] uint8, a colour for each connected region of the mask [H, W] bool; and the number of the regions.

    Regions of fewer than 16 pixels are no instances, as in the metrics.
    """
    found = objects.connected(mask, min_area=instances.MIN_AREA)
    colors = [colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, 0.85, 1.0) for number in range(len(found))]
    table = np.zeros((len(found) + 1, 4), np.uint8)
    table[1:, :3] = np.round(255 * np.array(colors).reshape(-1, 3))
    table[1:, 3] = 255
    return table[found.numbers], len(found)


def save(path: pathlib.Path, pixels: np.ndarray, *, size: tuple[int, int] | None = None) -> None:
    """Writes pixels [H, W, ...], at most 256 a side.

    Args:
        path: of the file; .jpg or .png.
        pixels: uint8.
        size: height and width that count in place of the pixels' own.
    """
    options = {"quality": 80} if path.suffix == ".jpg" else {}
    _resize(pixels, _shrunk(size or pixels.shape[:2])).save(path, **options)


def _shrunk(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, _SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
