"""Padding to multiples of 32 pixels, so that few shapes are compiled, and its removal."""

import numpy as np

MULTIPLE = 32


def padded_sizes(sizes: np.ndarray) -> np.ndarray:
    """Heights and widths [..., 2] after padding."""
    return -(-np.asarray(sizes) // MULTIPLE) * MULTIPLE


def pad(image: np.ndarray) -> np.ndarray:
    """Pads an image [H, W, 3] by reflection, equally on both sides; an odd pixel goes after it."""
    sizes = zip(image.shape[:2], padded_sizes(image.shape[:2]))
    rows, columns = (margins(*sides) for sides in sizes)
    return np.pad(image, (rows, columns, (0, 0)), mode="reflect")


def crop_back(padded: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The [H, W] part that belongs to an image, of a map [H', W'] or an image [H', W', 3].

    Args:
        padded: of the padded image, or of a canvas with it in the upper left corner.
        size: (H, W) of the image.
    """
    (top, _), (left, _) = (margins(*sides) for sides in zip(size, padded_sizes(size)))
    return padded[top : top + size[0], left : left + size[1]]


def place(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A padded image [h, w, 3] in the upper left corner of an array [H, W, 3] of that height and width."""
    if image.shape[:2] == tuple(shape):
        return image
    placed = np.zeros((*shape, *image.shape[2:]), image.dtype)
    placed[: image.shape[0], : image.shape[1]] = image
    return placed


def margins(size: int, padded_size: int) -> tuple[int, int]:
    """Pixels before and after a side of `size` pixels that padding makes `padded_size` long."""
    before = (padded_size - size) // 2
    return before, padded_size - size - before
