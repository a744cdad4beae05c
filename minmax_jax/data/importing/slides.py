"""Windows of images and masks: pathology slides are read by OpenSlide, all others completely by Pillow."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import itertools
import math
import pathlib

import numpy as np
from PIL import Image, TiffImagePlugin

from minmax_jax.data import dataset, image_files, image_reading, readings, tiff_files
from minmax_jax.data.importing import mask_rules, raw_dataset

# (top, left, bottom, right) in pixels of full resolution; they need not be integers.
Box = tuple[float, float, float, float]
# Greatest number of a slide's pixels (4 bytes each) in memory, unless one row of a tile needs more.
_MOST_PIXELS = 1 << 22
# Of masks that have the same values in the RGBA that OpenSlide makes of everything. One bit a pixel it does not read.
_EXACT_MODES = ("L", "RGB")
_REDUCED_SIDE = 1024  # greatest side of the copy whose percentiles are those of a slide
_MEAN, _NEAREST = Image.Resampling.BOX, Image.Resampling.NEAREST


@dataclasses.dataclass(frozen=True)
class LargeImage:
    """An image or a mask.

    Attributes:
        size: height and width, upright.
        read: box, (height, width) -> the box at that size: of an image [h, w, 3] uint8, a pixel is the mean of those
            that it covers; of a mask [h, w] bool, the nearest one.
        orientation: EXIF tag by which the file was turned.
        lossy: what the file holds that is not read, see `lossy_reading`.
    """

    size: tuple[int, int]
    read: Callable[[Box, tuple[int, int]], np.ndarray]
    orientation: int = 1
    lossy: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as it is stored."""
        return self.size if self.orientation >= 5 else self.size[::-1]


def open_image(path: pathlib.Path, reading: readings.Reading = readings.AS_STORED) -> LargeImage:
    """Opens an image, by OpenSlide if that knows its format.

    Args:
        path: of the file.
        reading: which channels are read, and how their values become 8 bits; percentiles of a slide are those of a
            reduced copy.

    Raises:
        DataError: if it is missing or is not a complete image; `read` raises it where a slide is damaged.
    """
    slide = _open_slide(path)
    if slide is not None and not _is_uncommon(slide, path, reading):

        def read(box: Box, size: tuple[int, int]) -> np.ndarray:
            return image_files.to_rgb(_crop_slide(slide, path, box, size, _MEAN), str(path))

        return LargeImage(slide.dimensions[::-1], _read_chosen(read, slide.dimensions[::-1], str(path), reading))
    with _naming_slides():
        image = image_reading.read(raw_dataset.read_file(path), str(path), reading)
    return dataclasses.replace(from_pixels(image.pixels, orientation=image.orientation), lossy=image.lossy)


def _is_uncommon(slide, path: pathlib.Path, reading: readings.Reading) -> bool:
    """Whether it is a tiled TIFF of which OpenSlide would show the first channel, or the upper 8 bits."""
    if slide.properties["openslide.vendor"] != "generic-tiff":
        return False
    tiff = tiff_files.describe(path)
    return tiff is not None and not tiff.is_common(reading.channels)


def _read_chosen(
    read: Callable[[Box, tuple[int, int]], np.ndarray],
    size: tuple[int, int],
    name: str,
    reading: readings.Reading,
) -> Callable[[Box, tuple[int, int]], np.ndarray]:
    """As `read`, with the channels and the intensities that are chosen."""
    if reading.is_default:
        return read
    channels = list(reading.channels or (0, 1, 2))
    image_reading.check_channels(tuple(channels), 3, name)
    limits = None
    if reading.intensity == "percentiles":
        shrink = max(1.0, max(size) / _REDUCED_SIDE)
        reduced = read((0, 0, *size), tuple(max(1, round(side / shrink)) for side in size))
        limits = readings.find_limits(reduced[..., channels])

    def read_chosen(box: Box, size: tuple[int, int]) -> np.ndarray:
        pixels = read(box, size)[..., channels]
        return readings.to_colors(pixels if limits is None else readings.scale(pixels, limits))

    return read_chosen


def from_pixels(pixels: np.ndarray, *, orientation: int = 1) -> LargeImage:
    """An image [H, W, 3] uint8, upright, whose file had this EXIF tag."""

    def read(box: Box, size: tuple[int, int]) -> np.ndarray:
        if tuple(box) == (0, 0, *size) and size == pixels.shape[:2]:
            return pixels
        top, left = (math.floor(side) for side in box[:2])
        window = pixels[top : math.ceil(box[2]), left : math.ceil(box[3])]
        inside = tuple(np.subtract(box, [top, left, top, left]).tolist())
        return np.asarray(_crop_picture(Image.fromarray(window), inside, size, _MEAN))

    return LargeImage(pixels.shape[:2], read, orientation)


def open_mask(path: pathlib.Path, image: LargeImage, *, rule: mask_rules.Rule) -> LargeImage:
    """Opens the mask of an image, which may have fewer pixels but the same shape; boxes are given in the image's.

    Raises:
        DataError: if it is missing, is not a complete image, has another shape than its image, or is a JPEG while the
            rule needs exact values; `read` raises it where the file is damaged.
    """
    crop, (height, width) = _open_values(path, image, rule)
    # Sides of a coarse mask are rounded.
    if abs(height * image.size[1] - width * image.size[0]) > max(image.size):
        raise dataset.DataError(
            f"{path} has {(height, width)} pixels (height, width), its image {image.size}: the shapes differ."
        )
    scale = (height / image.size[0], width / image.size[1]) * 2

    def read(box: Box, size: tuple[int, int]) -> np.ndarray:
        return rule(crop(tuple(np.multiply(box, scale).tolist()), size))

    return LargeImage((height, width), read)


def _open_values(
    path: pathlib.Path, image: LargeImage, rule: mask_rules.Rule
) -> tuple[Callable[[Box, tuple[int, int]], Image.Image], tuple[int, int]]:
    """A function that crops a mask, without changing its values, and the mask's height and width."""
    slide = _open_slide(path)
    # A mask that must be turned as its image is, or whose values OpenSlide changes, is read by Pillow.
    if slide is not None and image.orientation == 1 and slide.properties["openslide.vendor"] == "generic-tiff":
        try:
            # The header only: Image.open refuses large files.
            with TiffImagePlugin.TiffImageFile(path) as header:
                mode = header.mode
                mask_rules.refuse_blurred(rule, header, str(path))
        except SyntaxError as error:
            raise dataset.DataError(f"{path} is no mask ({error}). Save it with one channel of 8 bits.") from error
        if mode in _EXACT_MODES:
            return lambda box, size: _crop_slide(slide, path, box, size, _NEAREST), slide.dimensions[::-1]
    stored = _open_picture(path)
    mask_rules.refuse_blurred(rule, stored, str(path))
    upright = image_files.upright_mask(stored, tag=image.orientation, size=image.stored_size)
    return lambda box, size: _crop_picture(upright, box, size, _NEAREST), (upright.height, upright.width)


def _open_slide(path: pathlib.Path):
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


def _open_picture(path: pathlib.Path) -> Image.Image:
    content = raw_dataset.read_file(path)
    with _naming_slides():
        return image_files.open_picture(content, str(path))


@contextlib.contextmanager
def _naming_slides() -> Iterator[None]:
    """Adds to an error what slides need, where OpenSlide is not installed."""
    try:
        yield
    except dataset.DataError as error:
        try:
            import openslide  # noqa: F401
        except ImportError:
            raise dataset.DataError(f"{error} If it is a slide, run: pip install -e '.[slides]'") from error
        raise


def _crop_picture(picture: Image.Image, box: Box, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    top, left, bottom, right = box
    return picture.resize(size[::-1], resample, (left, top, min(right, picture.width), min(bottom, picture.height)))


def _crop_slide(slide, path: pathlib.Path, box: Box, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """As `_crop_picture`, RGBA; band by band where there is no level near the size that is asked for."""
    import openslide

    (top, left, bottom, right), (height, width) = box, size
    step = (bottom - top) / height
    # Later levels may hold means, which are not values of a mask. Factors are seldom integers: 4.0003 means 4.
    level = 0 if resample == _NEAREST else slide.get_best_level_for_downsample(1.01 * step)
    factor = slide.level_downsamples[level]
    num_bands = min(height, math.ceil((bottom - top) * (right - left) / factor**2 / _MOST_PIXELS))
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
