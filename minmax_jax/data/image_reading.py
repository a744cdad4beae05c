"""Image files as training and prediction see them: [H, W, 3] uint8 by a choice of channels and of intensities."""

from collections.abc import Mapping
import contextlib
import dataclasses
import io

import numpy as np
from PIL import Image

from minmax_jax.data import dataset, image_files, lossy_reading, readings, sixteen_bits, tiff_files, tiff_pages, turns

# What Pillow names formats that are compressed and that every build of it reads.
_COMPACT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
# Whose values are channels as stored; others, such as palettes, become colours first.
_STORED_MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "F", *image_files.SIXTEEN_BIT_MODES)
_DEEP_MODES = ("F", *image_files.SIXTEEN_BIT_MODES)


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image that was read.

    Attributes:
        pixels: [H, W, 3] uint8, upright.
        encoded: the file as it is, or the pixels as PNG: if its format is bulky or not read everywhere, if channels or
            intensities were chosen, or if another program, such as TFDS, which knows no palette, no transparency and no
            EXIF orientation, would decode it to other pixels.
        orientation: EXIF tag by which it was turned.
        lossy: what the file holds that is not read, see `lossy_reading`.
    """

    pixels: np.ndarray
    encoded: bytes
    orientation: int = 1
    lossy: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before it was turned."""
        height, width = self.pixels.shape[:2]
        return (height, width) if self.orientation >= 5 else (width, height)


def read(content: bytes, name: str, reading: readings.Reading = readings.AS_STORED) -> ImageFile:
    """Reads an image: upright by its EXIF tag, the first of several frames; on white unless channels are chosen.

    Args:
        content: of the file.
        name: of the file, for errors.
        reading: which channels are read, and how their values become 8 bits.

    Raises:
        DataError: if the content is not a complete image, if its pixels have no known range, if it lacks a channel, or
            if it has more channels than colours and none are chosen.
    """
    with image_files.naming_file(name, content):
        tiff = tiff_files.describe(io.BytesIO(content)) if tiff_files.is_tiff(content) else None
        if tiff is not None and not tiff.is_common(reading.channels):
            return _read_tiff(content, name, reading, tiff)
        try:
            return _read_picture(content, name, reading, tiff)
        except dataset.DataError:
            if tiff is not None and tiff.is_grey_or_rgb and tiff_files.explain(tiff):
                with contextlib.suppress(dataset.DataError):  # tifffile knows more compressions, with imagecodecs
                    return _read_tiff(content, name, reading, tiff)
            raise


def _read_picture(content: bytes, name: str, reading: readings.Reading, tiff: tiff_files.Tiff | None) -> ImageFile:
    """As Pillow decodes it."""
    picture = image_files.open_picture(content, name)
    # A picture that was decoded has lost some of what its header says, but of JPEG files.
    header = picture if picture.format == "JPEG" else Image.open(io.BytesIO(content))
    lossy, is_deep = _find_unread(header, tiff, reading), sixteen_bits.is_cut(header, content)
    tag = image_files.orientation(picture)
    if not reading.is_default:
        values = _stored_values(sixteen_bits.read(content) if is_deep else None, picture, name, reading)
        return _finish(values, reading, name, tag, lossy)
    pixels = image_files.to_rgb(picture, name)
    if is_deep or picture.mode in image_files.SIXTEEN_BIT_MODES:
        lossy |= lossy_reading.find_dark(int(pixels.max()))
    is_plain = picture.mode in ("L", "RGB") and tag == 1 and not picture.has_transparency_data and not is_deep
    encoded = content if picture.format in _COMPACT_FORMATS and is_plain else image_files.to_png(pixels)
    return ImageFile(pixels, encoded, tag, lossy)


def _find_unread(header: Image.Image, tiff: tiff_files.Tiff | None, reading: readings.Reading) -> dict[str, int]:
    """Channels and frames that are left out."""
    if tiff is None:
        # The further pictures of MPO files, from phones, are previews, depths or brighter versions.
        has_frames = header.format not in ("MPO", "TIFF") and getattr(header, "is_animated", False)
        return {"frames": getattr(header, "n_frames", 0)} if has_frames else {}
    lossy = {}
    if not reading.channels and tiff.num_channels - bool(tiff.alpha) > tiff.num_colors:
        lossy["channels"] = tiff.num_channels
    if tiff.num_frames > 1 and not (reading.channels and tiff.pages_may_be_channels):
        lossy["frames"] = tiff.num_frames
    return lossy


def _stored_values(deep: np.ndarray | None, picture: Image.Image, name: str, reading: readings.Reading) -> np.ndarray:
    """The channels that are read, [H, W, 1 to 3], as stored; `deep` is given where Pillow would cut 16 bits to 8."""
    if not reading.channels and deep is None and picture.mode not in _DEEP_MODES:
        tag, colors = image_files.orientation(picture), image_files.to_rgb(picture, name)
        colors = np.asarray(turns.as_stored(Image.fromarray(colors), tag))
        return colors[..., :1] if picture.mode in ("1", "L", "LA") else colors
    if deep is None:
        if picture.mode not in _STORED_MODES:
            picture = picture.convert("L" if picture.mode == "1" else "RGB")
        deep = np.asarray(picture)
    values = deep[..., None] if deep.ndim == 2 else deep
    if reading.channels:
        check_channels(reading.channels, values.shape[-1], name)
        return values[..., list(reading.channels)]
    return _on_white(values) if values.shape[-1] in (2, 4) else values


def _read_tiff(content: bytes, name: str, reading: readings.Reading, tiff: tiff_files.Tiff) -> ImageFile:
    """As tifffile decodes it."""
    if tiff.kind == "c":
        raise dataset.DataError(f"{name} has complex numbers. Save their magnitude with 8 or 16 bits a channel.")
    num_shown = tiff.num_colors + bool(tiff.alpha)
    if reading.channels:
        is_of_pages = tiff.pages_may_be_channels and tiff.num_channels == 1
        check_channels(reading.channels, tiff.num_frames if is_of_pages else tiff.num_channels, name)
    elif tiff.num_samples > num_shown and tiff.num_colors == 1:
        chosen = ",".join(map(str, range(min(3, tiff.num_channels))))
        raise dataset.DataError(
            f"{name} has {tiff_files.describe_kind(tiff)}: choose up to three when the data are prepared, such as"
            f" --channels={chosen}, or save three of them as RGB."
        )
    elif tiff.is_lab:
        raise dataset.DataError(f"{name} {tiff_files.explain(tiff)}")
    try:
        values = tiff_pages.read(content, tiff, reading.channels)
    except tiff_pages.NotReadError as error:
        raise dataset.DataError(f"{name} {error}") from error
    if not reading.channels:
        values = values[..., :num_shown]
        values = _on_white(values, is_multiplied=tiff.alpha == 1) if tiff.alpha else values
    return _finish(values, reading, name, tiff.orientation, _find_unread(None, tiff, reading))


def check_channels(channels: tuple[int, ...], count: int, name: str) -> None:
    """Raises DataError for channels that a file with so many does not have.

    Args:
        channels: numbers of the channels that are read, from 0.
        count: channels of the file.
        name: of the file, for the message.
    """
    if max(channels) >= count:
        has = f"{count} channels, 0 to {count - 1}" if count > 1 else "one channel, 0"
        raise dataset.DataError(
            f"{name} has {has}, and channels={','.join(map(str, channels))} are read. Save it with these channels, or"
            " leave it out."
        )


def _on_white(values: np.ndarray, *, is_multiplied: bool = False) -> np.ndarray:
    """Colours [H, W, C] whose last channel is their opacity, on white; the type is kept."""
    if values.dtype.kind not in "u":
        return values[..., :-1]
    white = np.iinfo(values.dtype).max
    colors, opacity = values[..., :-1].astype(np.float64), values[..., -1:] / white
    shown = colors if is_multiplied else colors * opacity
    return np.round(shown + white * (1 - opacity)).clip(0, white).astype(values.dtype)


def _finish(values: np.ndarray, reading: readings.Reading, name: str, tag: int, lossy: dict[str, int]) -> ImageFile:
    """Values [H, W, 1 to 3] as stored to the image."""
    if reading.intensity == "percentiles":
        pixels = readings.scale(values, readings.find_limits(values))
    else:
        pixels = _upper_bits(values, name)
        if values.dtype.itemsize > 1:
            lossy |= lossy_reading.find_dark(int(pixels.max()))
    upright = turns.upright(Image.fromarray(np.ascontiguousarray(readings.to_colors(pixels))), tag)
    pixels = np.asarray(upright)
    return ImageFile(pixels, image_files.to_png(pixels), tag, lossy)


def _upper_bits(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind == "f":
        raise dataset.DataError(f"{name} has floating-point pixels. {image_files.NO_RANGE}")
    if values.dtype == np.uint8:
        return values
    if values.min() < 0 or values.max() > 65535:
        kind = "negative values" if values.dtype.itemsize <= 2 else "pixels of more than 16 bits"
        raise dataset.DataError(f"{name} has {kind}. {image_files.NO_RANGE}")
    return (values >> (0 if values.dtype.itemsize == 1 else 8)).astype(np.uint8)
