"""What the tags of a TIFF say: channels, frames, types of numbers and compressions."""

from collections.abc import Iterator, Sequence
import contextlib
import contextvars
import dataclasses
import logging
import math
import pathlib
from typing import Any, BinaryIO

from PIL import TiffImagePlugin

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two with 64-bit offsets
WHITE_IS_ZERO, _RGB, _SEPARATED, _YCBCR, _LAB = 0, 2, 5, 6, (8, 9, 10)
_READ_BY_PILLOW = (0, 1, 2, 3, 5, 6)  # photometric interpretations, of 8 bits
_COLORS = {_RGB: 3, _SEPARATED: 4, _YCBCR: 3, 8: 3, 9: 3, 10: 3}
_ALPHA = (1, 2)  # of the tag ExtraSamples: with colours multiplied by it, and without
OPTIONAL = (34925, 50000, 50001)  # LZMA, Zstandard and WebP: libtiff may be built without them
_NAMES = {"JPEGXL": "JPEG XL", "JPEGXL_DNG": "JPEG XL", "WEBP": "WebP", "JPEGXR": "JPEG XR", "ADOBE_DEFLATE": "deflate"}


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
        return self.photometric in (WHITE_IS_ZERO, 1, _RGB)

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
        with without_log(), tifffile.TiffFile(file) as tiff:
            return _describe(tiff)
    except Exception:  # of damaged files, tifffile raises what it stumbles upon
        return None


@contextlib.contextmanager
def without_log() -> Iterator[None]:
    """Keeps what tifffile logs of damaged files, in this thread, from the user: errors name them once."""
    before = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(before)


# The level of the logger would be that of all threads: the last of two to end would leave that of the other.
_is_silent = contextvars.ContextVar("is_silent", default=False)


def _is_said(record: logging.LogRecord) -> bool:
    del record
    return not _is_silent.get()


logging.getLogger("tifffile").addFilter(_is_said)


def _describe(tiff: Any) -> Tiff:
    page, (axes, shape) = tiff.pages.first, leading(tiff)
    of_channels = math.prod(size for axis, size in zip(axes, shape) if axis == "C")
    others = [axis for axis, size in zip(axes, shape) if axis != "C" and size > 1]
    further = sum(not (page.is_reduced or page.is_mask) for page in _first_pages(tiff)[1:])
    extra = page.extrasamples if isinstance(page.extrasamples, tuple) else (page.extrasamples,)
    orientation = page.tags.valueof(274, 1)
    has_alpha = bool(extra) and page.samplesperpixel > 1 and extra[-1] in _ALPHA
    return Tiff(
        size=(int(page.imagelength), int(page.imagewidth)),
        kind="u" if page.dtype is None or page.dtype == bool else page.dtype.kind,
        bits=bits_of(page),
        photometric=int(page.photometric or 0),
        compression=int(page.compression),
        num_samples=int(page.samplesperpixel),
        num_channels=int(page.samplesperpixel) * of_channels,
        alpha=int(extra[-1]) if has_alpha else 0,
        num_frames=math.prod(size for axis, size in zip(axes, shape) if axis != "C") + further,
        pages_may_be_channels=page.samplesperpixel == 1 and of_channels == 1 and set(others) <= {"I", "Q"},
        orientation=orientation if orientation in range(1, 9) else 1,
    )


def bits_of(page: Any) -> int:
    """Of a sample of a page."""
    bits = page.bitspersample
    return int(max(bits) if isinstance(bits, tuple) else bits)


def leading(tiff: Any) -> tuple[str, tuple[int, ...]]:
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
    if tiff.compression in OPTIONAL:
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
