"""An image file that is to be predicted: its pixels, the scale at which the networks see it, and in how many tiles."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from minmax_jax.base.errors import naming
from minmax_jax.data import lossy_reading, padding, pixel_size, preprocessing, readings, slides
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.options import Options
from minmax_jax.runs.predictor import Predictor

# More than these is too large for one pass: times the training crop, as the networks see it, and pixels of a file.
_MAX_CROPS = 16
_MAX_PIXELS = 1 << 24


class Tiling(NamedTuple):
    """How a large image is cut.

    Attributes:
        size: (height, width) of the whole image as the networks see it.
        side: of a tile there.
    """

    size: tuple[int, int]
    side: int


@dataclasses.dataclass(frozen=True)
class Source:
    """An image file, opened.

    Attributes:
        input: the file.
        image: its windows.
        microns: a pixel, None if unknown.
        rescaling: the factor by which it is enlarged to have the magnification of the training.
        preprocessing: what the networks see of it.
        tiling: None for one pass.
        flags: what its magnification, and what of the file is not read, say against its mask.
        said: what the file says of the size of its pixels; nothing where the options give it.
    """

    input: Input
    image: slides.LargeImage
    microns: float | None
    rescaling: float
    preprocessing: preprocessing.Preprocessing
    tiling: Tiling | None
    flags: tuple[str, ...]
    said: pixel_size.PixelSize = pixel_size.UNKNOWN

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.image.size

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """[H, W, 3] uint8, all of it."""
        return self.image.read((0, 0, *self.image.size), self.image.size)


def open_source(item: Input, predictor: Predictor, options: Options) -> Source:
    """Opens an image file.

    Args:
        item: the file.
        predictor: that will see it.
        options: of the prediction.

    Raises:
        UserError: if it cannot be read, or is too small or of an impossible magnification.
        OSError: if it cannot be read.
    """
    image = slides.open_image(item.path, readings.from_json(predictor.card.get("reading")))
    said = pixel_size.UNKNOWN if options.microns_per_pixel else pixel_size.read(item.path)
    microns = options.microns_per_pixel or said.microns
    of_training = predictor.card.get("microns_per_pixel", 0.0)
    factor, flags = pixel_size.rescaling(microns, of_training), find_flags(said)
    if factor != 1 and not options.rescale:
        flags += (f"the image has {microns:.3g} microns a pixel, the images of the training {of_training:.3g}",)
        factor = 1.0
    with naming(f"{item.path}: "):
        prepare = dataclasses.replace(predictor.preprocessing, scale=predictor.preprocessing.scale * factor)
    tiling = find_tiling(image.size, prepare, crop_size=predictor.card["crop_size"], tile_size=options.tile_size)
    flags = (*flags, *lossy_reading.flags(image.lossy))
    return Source(item, image, microns, factor, prepare, tiling, flags, said)


def find_flags(said: pixel_size.PixelSize) -> tuple[str, ...]:
    """What the pixel size that a file gives says against its mask."""
    if said.ignored != pixel_size.NOT_SQUARE:
        return ()
    return (f"{pixel_size.NOT_SQUARE} ({pixel_size.format_sides(said.sides)})",)


def find_tiling(
    size: tuple[int, int], prepare: preprocessing.Preprocessing, *, crop_size: tuple[int, int], tile_size: int | None
) -> Tiling | None:
    """How an image is cut; None for one pass.

    Args:
        size: (H, W) of the image.
        prepare: of the image or, with a `tile_size`, of each tile as if it was an image.
        crop_size: height and width of the training crops.
        tile_size: as of `Options`.
    """
    if tile_size == 0:
        return None
    if tile_size:
        side = int(prepare.sizes(np.array([[tile_size, tile_size]]))[0, 0])
        seen = tuple(max(1, round(length * side / tile_size)) for length in size)
        is_cut = max(seen) > _padded(side) and min(seen) >= preprocessing.MIN_SIDE
        return Tiling(seen, _padded(side)) if is_cut else None
    seen = tuple(prepare.sizes(np.array([size]))[0].tolist())
    if min(seen) < preprocessing.MIN_SIDE:
        return None  # it is refused
    if np.prod(seen) > _MAX_CROPS * np.prod(crop_size):
        return Tiling(seen, _padded(max(crop_size)))
    return Tiling(seen, max(seen)) if np.prod(size) > _MAX_PIXELS else None


def _padded(side: int) -> int:
    return int(padding.padded_sizes(np.array(side)))
