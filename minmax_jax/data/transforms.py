"""Augmentation of training images: padding, random crop, flips, colour jitter, as published; stains of H&E images.

Every sample is drawn from one generator of its own, so that batches do not depend on who makes them.
"""

import dataclasses

import grain
import numpy as np
from PIL import Image, ImageEnhance

from minmax_jax.data import stains


@dataclasses.dataclass(frozen=True)
class Augmentation(grain.transforms.RandomMap):
    """Example with an image of any size to example with an augmented crop.

    Attributes:
        crop_size: (height, width) of the result; a smaller image is padded by reflection first.
        padding: reflection on each side before the crop, as a share of the height and the width.
        flip_horizontal: mirror left and right, half of the time.
        flip_vertical: mirror top and bottom, half of the time.
        stain_augmentation: s; the amount of each H&E stain is multiplied by a factor from [1 - s, 1 + s], and a shift
            from [-s, s] is added, in optical density.
        brightness: b; the image is multiplied by a factor from [max(0, 1 - b), 1 + b].
        contrast: likewise, the distance from the mean grey.
        saturation: likewise, the distance from the image's own grey.
        hue: h; the colours are turned by a share of the circle from [-h, h], at most 0.5.
    """

    crop_size: tuple[int, int]
    padding: float = 0.0
    flip_horizontal: bool = True
    flip_vertical: bool = False
    stain_augmentation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        """The example with "images" augmented."""
        image = element["images"]
        rows, columns = (
            _crop_indices(size, crop, self.padding, rng) for size, crop in zip(image.shape[:2], self.crop_size)
        )
        if self.flip_horizontal and rng.random() < 0.5:
            columns = columns[::-1]
        if self.flip_vertical and rng.random() < 0.5:
            rows = rows[::-1]
        image = image[np.ix_(rows, columns)]
        if self.stain_augmentation > 0:
            image = stains.augment_stains(image, rng, self.stain_augmentation)
        return element | {"images": self._jitter(image, rng)}

    def _jitter(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The four changes of colour in random order, as torchvision's ColorJitter does them."""
        changes = [
            (strength, change)
            for strength, change in (
                (self.brightness, _enhance(ImageEnhance.Brightness)),
                (self.contrast, _enhance(ImageEnhance.Contrast)),
                (self.saturation, _enhance(ImageEnhance.Color)),
                (self.hue, _turn_hue),
            )
            if strength > 0
        ]
        if not changes:
            return image
        picture = Image.fromarray(image)
        for place in rng.permutation(len(changes)):
            strength, change = changes[place]
            picture = change(picture, rng.uniform(-strength, strength))
        return np.asarray(picture)


def _crop_indices(size: int, crop: int, padding: float, rng: np.random.Generator) -> np.ndarray:
    """Which rows (or columns) of the image a random crop of the padded one takes."""
    pad = max(int(padding * size), (crop - size + 1) // 2)
    padded = np.pad(np.arange(size), pad, mode="reflect")
    start = rng.integers(len(padded) - crop + 1)
    return padded[start : start + crop]


def _enhance(enhancer):
    return lambda picture, amount: enhancer(picture).enhance(max(0.0, 1 + amount))


def _turn_hue(picture: Image.Image, amount: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + round(amount * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")
