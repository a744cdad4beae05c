"""Large images, read window by window: pathology slides by OpenSlide, all others completely by Pillow."""

from collections.abc import Callable, Mapping
import dataclasses
import math
import pathlib

import numpy as np
from PIL import Image

from minmax_jax.data import image_files, image_reading, raw_files, readings, slide_windows, tiff_files

_REDUCED_SIDE = 1024  # maximum side of the copy whose percentiles are those of a slide


@dataclasses.dataclass(frozen=True)
class LargeImage:
    """An image or a mask.

    Attributes:
        size: height and width, upright.
        read: box, (height, width) -> the box at that size: of an image [h, w, 3] uint8, a pixel is the mean of those
            that it covers; of a mask [h, w] bool, the nearest one.
        orientation: EXIF tag by which the file was turned.
        lossy: what the file holds that is not read, see `lossy_reading`.
        bounds: of a slide that has them, the part that is the image: its pixel (0, 0) is (left, top) of the slide.
        slide_size: height and width of the whole slide, where there are bounds.
    """

    size: tuple[int, int]
    read: Callable[[slide_windows.Box, tuple[int, int]], np.ndarray]
    orientation: int = 1
    lossy: Mapping[str, int] = dataclasses.field(default_factory=dict)
    bounds: slide_windows.Bounds | None = None
    slide_size: tuple[int, int] | None = None

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as it is stored."""
        return self.size if self.orientation >= 5 else self.size[::-1]


def open_image(path: pathlib.Path, reading: readings.Reading = readings.AS_STORED) -> LargeImage:
    """Opens an image, by OpenSlide if that knows its format; of a slide with bounds the part inside.

    Args:
        path: of the file.
        reading: which channels are read, and how their values become 8 bits; percentiles of a slide are those of a
            reduced copy.

    Raises:
        DataError: if it is missing or is not a complete image; `read` raises it where a slide is damaged.
    """
    slide = slide_windows.open_slide(path)
    if slide is not None and not _is_uncommon(slide, path, reading):
        bounds = slide_windows.find_bounds(slide)
        left, top, width, height = bounds or slide_windows.Bounds(0, 0, *slide.dimensions)

        def read(box: slide_windows.Box, size: tuple[int, int]) -> np.ndarray:
            inside = tuple(np.add(box, [top, left] * 2).tolist())
            return image_files.to_rgb(
                slide_windows.crop_slide(slide, path, inside, size, slide_windows.MEAN), str(path)
            )

        return LargeImage(
            (height, width),
            _read_chosen(read, (height, width), str(path), reading),
            bounds=bounds,
            slide_size=slide.dimensions[::-1] if bounds else None,
        )
    with slide_windows.naming_slides():
        image = image_reading.read(raw_files.read_file(path), str(path), reading)
    return dataclasses.replace(from_pixels(image.pixels, orientation=image.orientation), lossy=image.lossy)


def _is_uncommon(slide, path: pathlib.Path, reading: readings.Reading) -> bool:
    """Whether it is a tiled TIFF of which OpenSlide would show the first channel, or the upper 8 bits."""
    if slide.properties["openslide.vendor"] != "generic-tiff":
        return False
    tiff = tiff_files.describe(path)
    return tiff is not None and not tiff.is_common(reading.channels)


def _read_chosen(
    read: Callable[[slide_windows.Box, tuple[int, int]], np.ndarray],
    size: tuple[int, int],
    name: str,
    reading: readings.Reading,
) -> Callable[[slide_windows.Box, tuple[int, int]], np.ndarray]:
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

    def read_chosen(box: slide_windows.Box, size: tuple[int, int]) -> np.ndarray:
        pixels = read(box, size)[..., channels]
        return readings.to_colors(pixels if limits is None else readings.scale(pixels, limits))

    return read_chosen


def from_pixels(pixels: np.ndarray, *, orientation: int = 1) -> LargeImage:
    """An image [H, W, 3] uint8, upright, whose file had this EXIF tag."""

    def read(box: slide_windows.Box, size: tuple[int, int]) -> np.ndarray:
        if tuple(box) == (0, 0, *size) and size == pixels.shape[:2]:
            return pixels
        top, left = (math.floor(side) for side in box[:2])
        window = pixels[top : math.ceil(box[2]), left : math.ceil(box[3])]
        inside = tuple(np.subtract(box, [top, left, top, left]).tolist())
        return np.asarray(slide_windows.crop_picture(Image.fromarray(window), inside, size, slide_windows.MEAN))

    return LargeImage(pixels.shape[:2], read, orientation)


def read_enlarged(image: LargeImage, box: slide_windows.Box, size: tuple[int, int]) -> np.ndarray:
    """A box of an image at more pixels than it has: bilinear, with the pixels around the box.

    Args:
        image: the image to read from.
        box: (top, left, bottom, right) in its pixels.
        size: (h, w) of the result.

    Returns:
        [h, w, 3] uint8.
    """
    top, left = (max(0, math.floor(place) - 1) for place in box[:2])
    bottom, right = (min(side, math.ceil(place) + 1) for place, side in zip(box[2:], image.size))
    around = image.read((top, left, bottom, right), (bottom - top, right - left))
    inside = (box[1] - left, box[0] - top, min(box[3], right) - left, min(box[2], bottom) - top)
    return np.asarray(Image.fromarray(around).resize(size[::-1], Image.Resampling.BILINEAR, inside))
