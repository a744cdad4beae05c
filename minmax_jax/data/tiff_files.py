"""TIFF files as they are stored: channels, frames, types of numbers and compressions. Pages are decoded by tifffile."""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import io
import itertools
import logging
import math
import pathlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from minmax_jax.data import sixteen_bits

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two with 64-bit offsets
_WHITE_IS_ZERO, _RGB, _SEPARATED, _YCBCR, _LAB = 0, 2, 5, 6, (8, 9, 10)
_READ_BY_PILLOW = (0, 1, 2, 3, 5, 6)  # photometric interpretations, of 8 bits
_COLORS = {_RGB: 3, _SEPARATED: 4, _YCBCR: 3, 8: 3, 9: 3, 10: 3}
_ALPHA = (1, 2)  # of the tag ExtraSamples: with colours multiplied by it, and without
_MOST_BYTES = 1 << 31  # of a decoded page
_OPTIONAL = (34925, 50000, 50001)  # LZMA, Zstandard and WebP: libtiff may be built without them
_NAMES = {"JPEGXL": "JPEG XL", "JPEGXL_DNG": "JPEG XL", "WEBP": "WebP", "JPEGXR": "JPEG XR", "ADOBE_DEFLATE": "deflate"}


class NotReadError(ValueError):
    """An intact file that is not read; the text goes on after the name of the file."""


@dataclasses.dataclass(frozen=True)
class Tiff:
    """What the tags of the first image say.

    Attributes:
        size: height and width.
        kind: of its numbers, as NumPy's: "u", "i", "f" or "c".
        bits: of a number.
        photometric: interpretation, the tag's number.
        compression: the tag's number.
        num_samples: of a pixel, in one page.
        num_channels: of a pixel: samples, times the pages that are channels.
        alpha: ExtraSamples of the last sample if it is transparency, 0 without.
        num_frames: further dimensions, such as depth and time, and further images.
        pages_may_be_channels: whether the frames are pages of one sample that nothing describes.
        orientation: the tag, 1 to 8.
    """

    size: tuple[int, int]
    kind: str
    bits: int
    photometric: int
    compression: int
    num_samples: int
    num_channels: int
    alpha: int
    num_frames: int
    pages_may_be_channels: bool
    orientation: int

    @property
    def num_colors(self) -> int:
        """Samples that are colours."""
        return _COLORS.get(self.photometric, 1)

    @property
    def is_lab(self) -> bool:
        """Whether samples are lightness and two differences of colours."""
        return self.photometric in _LAB

    @property
    def is_grey_or_rgb(self) -> bool:
        """Whether samples are grey values or red, green and blue as they are."""
        return self.photometric in (_WHITE_IS_ZERO, 1, _RGB)

    def is_common(self, channels: Sequence[int] = ()) -> bool:
        """Whether Pillow and OpenSlide show all that is asked for: 8 bits, grey or colours, no further channels."""
        if self.kind != "u" or (self.num_channels > self.num_samples and channels):
            return False
        if self.photometric in (_SEPARATED, _YCBCR) and not channels:
            return True
        is_alone = self.num_samples == self.num_colors or (self.alpha and self.num_samples == self.num_colors + 1)
        has_more = self.photometric == _RGB and not channels
        if channels and self.pages_may_be_channels and self.num_frames > 1:
            return False
        return self.bits <= 8 and self.photometric in _READ_BY_PILLOW and bool(is_alone or has_more)


def is_tiff(content: bytes) -> bool:
    """Whether the content of a file begins as a TIFF does."""
    return content[:4] in _SIGNATURES


def describe(file: pathlib.Path | BinaryIO) -> Tiff | None:
    """The tags of a TIFF; None if it is none, or damaged: whoever decodes it says so."""
    import tifffile

    try:
        with _without_log(), tifffile.TiffFile(file) as tiff:
            return _describe(tiff)
    except Exception:  # of damaged files, tifffile raises what it stumbles upon
        return None


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Keeps what tifffile logs of damaged files from the user: errors name them once."""
    logger = logging.getLogger("tifffile")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _describe(tiff: Any) -> Tiff:
    page, (axes, shape) = tiff.pages.first, _leading(tiff)
    of_channels = math.prod(size for axis, size in zip(axes, shape) if axis == "C")
    others = [axis for axis, size in zip(axes, shape) if axis != "C" and size > 1]
    further = sum(not (page.is_reduced or page.is_mask) for page in _first_pages(tiff)[1:])
    extra = page.extrasamples if isinstance(page.extrasamples, tuple) else (page.extrasamples,)
    orientation = page.tags.valueof(274, 1)
    has_alpha = bool(extra) and page.samplesperpixel > 1 and extra[-1] in _ALPHA
    return Tiff(
        size=(int(page.imagelength), int(page.imagewidth)),
        kind="u" if page.dtype is None or page.dtype == bool else page.dtype.kind,
        bits=_bits(page),
        photometric=int(page.photometric or 0),
        compression=int(page.compression),
        num_samples=int(page.samplesperpixel),
        num_channels=int(page.samplesperpixel) * of_channels,
        alpha=int(extra[-1]) if has_alpha else 0,
        num_frames=math.prod(size for axis, size in zip(axes, shape) if axis != "C") + further,
        pages_may_be_channels=page.samplesperpixel == 1 and of_channels == 1 and set(others) <= {"I", "Q"},
        orientation=orientation if orientation in range(1, 9) else 1,
    )


def _bits(page: Any) -> int:
    bits = page.bitspersample
    return int(max(bits) if isinstance(bits, tuple) else bits)


def _leading(tiff: Any) -> tuple[str, tuple[int, ...]]:
    """Names and sizes of the dimensions whose places are pages."""
    page = tiff.pages.first
    try:
        series = tiff.series[0]
        number = len(series.shape) - len(page.shape)
        if number < 0 or tuple(series.shape[number:]) != tuple(page.shape):
            return "", ()
        return series.axes[:number], tuple(map(int, series.shape[:number]))
    except Exception:  # a description that cannot be read says nothing about the pages
        return "", ()


def _first_pages(tiff: Any) -> list[Any]:
    try:
        return [series.keyframe for series in tiff.series if series.keyframe is not None]
    except Exception:
        return []


def read(content: bytes, tiff: Tiff, channels: Sequence[int]) -> np.ndarray:
    """The values of some channels of the first frame.

    Args:
        content: of the file.
        tiff: its tags.
        channels: indices; (): the first page, with its colours.

    Returns:
        [H, W, C] as stored; where white is zero, inverted; of 9 to 15 bits, shifted to 16.

    Raises:
        NotReadError: if it is too large, or has a compression that cannot be decoded.
    """
    import tifffile

    if math.prod(tiff.size) > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{math.prod(tiff.size)} pixels")
    if math.prod(tiff.size) * tiff.num_samples * tiff.bits > 8 * _MOST_BYTES:
        raise NotReadError(f"has {describe_kind(tiff)}: more than 2 GiB. Save the channels one by one.")
    with _without_log(), tifffile.TiffFile(io.BytesIO(content)) as opened:
        if not channels:
            values = _read_page(opened, content, 0)
        else:
            places = [_place(opened, tiff, channel) for channel in channels]
            pages = {number: _read_page(opened, content, number) for number in dict.fromkeys(p for p, _ in places)}
            values = np.stack([pages[number][..., sample] for number, sample in places], axis=-1)
    if tiff.photometric == _WHITE_IS_ZERO and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    if values.dtype == np.uint16 and tiff.bits < 16:
        values = values << (16 - tiff.bits)
    return values


def _place(opened: Any, tiff: Tiff, channel: int) -> tuple[int, int]:
    """Page and sample of a channel."""
    axes, shape = _leading(opened)
    page, sample = divmod(channel, tiff.num_samples)
    counted = "IQ" if tiff.pages_may_be_channels else "C"
    places = itertools.product(*(range(size if axis in counted else 1) for axis, size in zip(axes, shape)))
    # Other dimensions: their first place. The numbers of pages count all of them.
    found = next(itertools.islice(places, page, None))
    return int(np.ravel_multi_index(found, shape)) if shape else 0, sample


def _read_page(opened: Any, content: bytes, number: int) -> np.ndarray:
    """A page of the first image, [H, W, S]."""
    series = opened.series[0] if _leading(opened)[1] else None
    if series is not None and series.dataoffset is not None:
        page, dtype = opened.pages.first, np.dtype(opened.byteorder + series.dtype.char)
        count, offset = math.prod(page.shape), series.dataoffset
        values = np.frombuffer(content, dtype, count, offset + number * count * dtype.itemsize).reshape(page.shape)
        values = values.astype(dtype.newbyteorder("="))
    else:
        page = opened.pages.first if series is None else series.pages[number]
        values = _decode(page, content)
    axes = opened.pages.first.axes
    for axis in reversed([axis for axis in axes if axis not in "SYX"]):
        values, axes = np.take(values, 0, axis=axes.index(axis)), axes.replace(axis, "")
    return values[..., None] if "S" not in axes else np.moveaxis(values, axes.index("S"), -1)


def _decode(page: Any, content: bytes) -> np.ndarray:
    """A page by tifffile or, where that lacks the codec, by Pillow."""
    try:
        return page.asarray()
    except Exception as error:  # of several kinds
        if "imagecodecs" not in str(error):
            raise
        compression = name_compression(page.compression)
    if int(page.compression) in TiffImagePlugin.COMPRESSION_INFO:
        try:
            values = sixteen_bits.read(content, page=page.index)
        except (Image.UnidentifiedImageError, SyntaxError):  # a kind of pixels that Pillow does not know
            values = None
        if values is not None and values.size == math.prod(page.shape):
            return values.reshape(page.shape) if page.axes[0] != "S" else np.moveaxis(values, -1, 0)
    raise NotReadError(
        f"cannot be read: its compression ({compression}) of {_bits(page)}-bit pixels with {page.samplesperpixel}"
        f" {'channels' if page.samplesperpixel > 1 else 'channel'} is not supported: save it with deflate or without"
        " compression, or install imagecodecs (pip install imagecodecs)."
    )


def name_compression(compression: int) -> str:
    """What a compression is called, as in "JPEG XL"."""
    import tifffile

    try:
        name = tifffile.COMPRESSION(compression).name
    except ValueError:
        return f"number {int(compression)}"
    if "2000" in name or name.startswith("APERIO"):
        return "JPEG 2000"
    return _NAMES.get(name, name)


def explain(tiff: Tiff) -> str:
    """Why an intact file is not read, and how to save it; "" if its tags are no reason."""
    import tifffile

    if tiff.is_lab:
        return f"has CIELAB colours of {tiff.bits} bits, which are not read: save it as RGB."
    known = {*TiffImagePlugin.COMPRESSION_INFO, *map(int, (tifffile.COMPRESSION.LZMA, tifffile.COMPRESSION.NONE))}
    if tiff.compression not in known:
        name = name_compression(tiff.compression)
        return f"cannot be read: its compression ({name}) is not supported: save it with JPEG, LZW or deflate."
    if tiff.compression in _OPTIONAL:
        name = name_compression(tiff.compression)
        return (
            f"cannot be read: its compression ({name}) is not supported by this installation, or it is damaged: save it"
            " with JPEG, LZW or deflate."
        )
    return ""


def describe_kind(tiff: Tiff) -> str:
    """Channels and bits, as in "5 channels of 8 bits"."""
    numbers = {"f": "floating-point numbers", "c": "complex numbers"}.get(tiff.kind, f"{tiff.bits} bits")
    return f"{tiff.num_channels} channel{'s' if tiff.num_channels > 1 else ''} of {numbers}"
