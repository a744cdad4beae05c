"""Windows of a slide, which OpenSlide reads, and of a picture that is in memory."""

from collections.abc import Iterator
import contextlib
import itertools
import math
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from minmax_jax.data import dataset, image_files, raw_files, tiff_files

# (top, left, bottom, right) in pixels of full resolution; they need not be integers.
Box = tuple[float, float, float, float]
# Resampling of images, and of masks, whose values must not change.
MEAN, NEAREST = Image.Resampling.BOX, Image.Resampling.NEAREST
# Maximum number of a slide's pixels (4 bytes each) in memory, unless one row of a tile needs more.
_MAX_PIXELS = 1 << 22


class Bounds(NamedTuple):
    """The scanned part of a slide, in pixels of full resolution; what is around it is empty, and QuPath hides it."""

    left: int
    top: int
    width: int
    height: int


def open_slide(path: pathlib.Path):
    """An OpenSlide, which is closed when it is dropped; None where it is not installed or does not know the format."""
    try:
        import openslide
    except ImportError:
        return None
    if openslide.OpenSlide.detect_format(path) is None:
        return None
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        # Of compressions that OpenSlide does not know. Whoever reads all of it knows more, or names the compression.
        if "compression" in str(error) and tiff_files.describe(path) is not None:
            return None
        raise dataset.DataError(f"{path} cannot be read as a slide ({error}). Replace it by an intact copy.") from error


def find_bounds(slide) -> Bounds | None:
    """Those of a slide, cut to it; None where it has none, or where they are all of it."""
    import openslide

    names = (
        *(openslide.PROPERTY_NAME_BOUNDS_X, openslide.PROPERTY_NAME_BOUNDS_Y),
        *(openslide.PROPERTY_NAME_BOUNDS_WIDTH, openslide.PROPERTY_NAME_BOUNDS_HEIGHT),
    )
    try:
        left, top, width, height = (int(slide.properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    (first_x, first_y), (last_x, last_y) = (
        np.clip(place, 0, slide.dimensions).tolist() for place in ((left, top), (left + width, top + height))
    )
    bounds = Bounds(first_x, first_y, last_x - first_x, last_y - first_y)
    return bounds if min(bounds[2:]) > 0 and bounds[2:] != slide.dimensions else None


def open_picture(path: pathlib.Path) -> Image.Image:
    """A picture that Pillow reads completely.

    Raises:
        DataError: if it is missing or is not a complete picture.
    """
    content = raw_files.read_file(path)
    with naming_slides():
        return image_files.open_picture(content, str(path))


@contextlib.contextmanager
def naming_slides() -> Iterator[None]:
    """Adds to an error what slides need, where OpenSlide is not installed."""
    try:
        yield
    except dataset.DataError as error:
        try:
            import openslide  # noqa: F401
        except ImportError:
            raise dataset.DataError(f"{error} If it is a slide, run: pip install -e '.[slides]'") from error
        raise


def crop_picture(picture: Image.Image, box: Box, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """A box of a picture.

    Args:
        picture: in memory.
        box: in its pixels.
        size: height and width of the result.
        resample: `MEAN` or `NEAREST`.
    """
    top, left, bottom, right = box
    return picture.resize(size[::-1], resample, (left, top, min(right, picture.width), min(bottom, picture.height)))


def crop_slide(slide, path: pathlib.Path, box: Box, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """A box of a slide, RGBA; read band by band where there is no level near the size that is asked for.

    Args:
        slide: an OpenSlide.
        path: of its file, for the error.
        box: in pixels of full resolution.
        size: height and width of the result.
        resample: `MEAN` or `NEAREST`.

    Raises:
        DataError: where the slide is damaged.
    """
    import openslide

    (top, left, bottom, right), (height, width) = box, size
    step = (bottom - top) / height
    # Later levels may hold means, which are not values of a mask. Factors are seldom integers: 4.0003 means 4.
    level = 0 if resample == NEAREST else slide.get_best_level_for_downsample(1.01 * step)
    factor = slide.level_downsamples[level]
    num_bands = min(height, math.ceil((bottom - top) * (right - left) / factor**2 / _MAX_PIXELS))
    picture = Image.new("RGBA", (width, height))
    for first, last in itertools.pairwise(np.linspace(0, height, num_bands + 1).astype(int).tolist()):
        band = np.divide([left, top + step * first, right, top + step * last], factor)
        x, y = np.floor(band[:2]).astype(int).tolist()
        width_read, height_read = (np.ceil(band[2:]).astype(int) - [x, y]).tolist()
        try:
            region = slide.read_region((round(x * factor), round(y * factor)), level, (width_read, height_read))
        except openslide.OpenSlideError as error:
            raise dataset.DataError(f"{path} is damaged at {box} ({error}). Replace it by an intact copy.") from error
        inside = tuple((band - [x, y, x, y]).tolist())
        picture.paste(region.resize((width, last - first), resample, inside), (0, first))
    return picture
