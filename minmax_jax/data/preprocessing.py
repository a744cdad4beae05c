"""Preprocessing: what is done to every image of a run, whether it trains, is evaluated or is new."""

import dataclasses

import numpy as np
from PIL import Image

from minmax_jax.base import options
from minmax_jax.base.errors import OptionError
from minmax_jax.data import stains

MIN_SIDE = 32  # pixels
STAIN_NORMALIZATIONS = ("none", "macenko")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Stain normalization, then resizing; picklable, for worker processes.

    Attributes:
        stain_normalization: "none" or, of H&E images, "macenko" (ISBI 2009).
        scale: size as a share of the original.
        min_side: images whose smaller side has fewer pixels are enlarged to it; 0: none.
        max_side: images whose smaller side has more pixels are shrunk to it; 0: none.

    Raises:
        OptionError: for an unknown normalization or a number out of range.

    Example:
        >>> import numpy as np
        >>> from minmax_jax.data import preprocessing
        >>> prepare = preprocessing.Preprocessing(scale=0.5, min_side=64)
        >>> prepare(np.zeros((100, 200, 3), np.uint8)).shape  # 50 by 100, then enlarged
        (64, 128, 3)
    """

    stain_normalization: str = "none"
    scale: float = 1.0
    min_side: int = 0
    max_side: int = 0

    def __post_init__(self):
        options.check_choice("stain_normalization", self.stain_normalization, STAIN_NORMALIZATIONS)
        options.check_ranges(
            self, scale=(1e-3, 8), min_side=(0, 8192), max_side=(MIN_SIDE, 65536), or_zero=("max_side",)
        )
        if self.max_side and self.max_side < self.min_side:
            raise OptionError(f"max_side={self.max_side} must be at least min_side={self.min_side}.")

    def sizes(self, sizes: np.ndarray) -> np.ndarray:
        """[N, 2] heights and widths after resizing, of images with [N, 2] heights and widths."""
        scaled = np.maximum(np.round(sizes * self.scale), 1)
        smaller_side = scaled.min(axis=1, keepdims=True)
        clipped = np.clip(smaller_side, self.min_side, self.max_side or np.inf)
        return np.round(scaled * clipped / smaller_side).astype(int)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 to the preprocessed [h, w, 3] uint8.

        Raises:
            OptionError: if a side of the result has fewer than 32 pixels.
        """
        (size,) = self.sizes(np.array([image.shape[:2]])).tolist()
        if min(size) < MIN_SIDE:
            raise OptionError(
                f"images of {image.shape[0]}x{image.shape[1]} pixels become {size[0]}x{size[1]} at scale={self.scale};"
                f" each side needs at least {MIN_SIDE}."
            )
        if self.stain_normalization == "macenko":
            image = stains.normalize_stains(image)
        return resize(image, size)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] uint8 at another (height, width); bilinear."""
    if image.shape[:2] == tuple(size):
        return image
    height, width = map(int, size)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
