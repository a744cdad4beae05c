"""Augmentation of training images: padding, random crop, flips, colour jitter, as published; stains of H&E images.

Each sample has its own random generator, so that batches do not depend on the worker that makes them.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageEnhance

from minmax_jax.base import options
from minmax_jax.data import stains


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Maps an example with an image of any size to one with an augmented crop.

    Attributes:
        size: (height, width) of the result; a smaller image is padded by reflection first. (0, 0): not known yet.
        padding: reflection on each side before the crop, as a share of the height and the width.
        flip_horizontal: mirror left and right, half of the time.
        flip_vertical: mirror top and bottom, half of the time.
        stain_augmentation: s; the amount of each H&E stain is multiplied by a factor from [1 - s, 1 + s], and a shift
            from [-s, s] is added, in optical density.
        brightness: b; the image is multiplied by a factor from [max(0, 1 - b), 1 + b].
        contrast: the same for the distance from the mean grey.
        saturation: the same for the distance from the grey image.
        hue: h; hues are rotated by a share of the colour circle from [-h, h], at most 0.5.

    Raises:
        OptionError: for a number out of range.
    """

    size: tuple[int, int] = (0, 0)
    padding: float = 0.0
    flip_horizontal: bool = True
    flip_vertical: bool = False
    stain_augmentation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        for name in ("padding", "brightness", "contrast", "saturation"):
            options.check_range(name, getattr(self, name), 0, 8)
        options.check_range("stain_augmentation", self.stain_augmentation, 0, 1)
        options.check_range("hue", self.hue, 0, 0.5)

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """The example with "images" augmented."""
        image = element["images"]
        rows, columns = (_crop_indices(side, crop, self.padding, rng) for side, crop in zip(image.shape[:2], self.size))
        if self.flip_horizontal and rng.random() < 0.5:
            columns = columns[::-1]
        if self.flip_vertical and rng.random() < 0.5:
            rows = rows[::-1]
        image = image[np.ix_(rows, columns)]
        if self.stain_augmentation > 0:
            image = stains.augment_stains(image, rng, self.stain_augmentation)
        return element | {"images": self._jitter(image, rng)}

    def _jitter(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The four colour changes in random order, as torchvision's ColorJitter."""
        changes = [
            (strength, change)
            for strength, change in (
                (self.brightness, _enhance(ImageEnhance.Brightness)),
                (self.contrast, _enhance(ImageEnhance.Contrast)),
                (self.saturation, _enhance(ImageEnhance.Color)),
                (self.hue, _rotate_hue),
            )
            if strength > 0
        ]
        if not changes:
            return image
        picture = Image.fromarray(image)
        for index in rng.permutation(len(changes)):
            strength, change = changes[index]
            picture = change(picture, rng.uniform(max(-1.0, -strength), strength))
        return np.asarray(picture)


def _crop_indices(size: int, crop: int, padding: float, rng: np.random.Generator) -> np.ndarray:
    """Rows (or columns) of the image in a random crop of the padded image."""
    pad = max(int(padding * size), (crop - size + 1) // 2)
    padded = np.pad(np.arange(size), pad, mode="reflect")
    start = rng.integers(len(padded) - crop + 1)
    return padded[start : start + crop]


def _enhance(enhancer):
    return lambda picture, amount: enhancer(picture).enhance(1 + amount)


def _rotate_hue(picture: Image.Image, amount: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    rotated = (np.asarray(hue).astype(int) + round(amount * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(rotated.astype(np.uint8)), saturation, value)).convert("RGB")
