"""Encoded image files of any kind that Pillow reads, to pixels and back. The content determines the format."""

from collections.abc import Iterator
import contextlib
import io
import pathlib

import numpy as np
from PIL import ExifTags, Image

from minmax_jax.data import dataset

# What Pillow names formats that are compressed and that every build of it reads.
_COMPACT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
_PNG_DEPTH = 24  # place of the bits a channel, in the header of a PNG file
# By the EXIF orientation; 1 is upright.
_TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        2,
    )
)
# Of pictures that Pillow does not read, and of what lies next to images.
_NOT_READ = (".heic", ".heif", ".svg", ".pdf", ".dng", ".cr2", ".nef", ".arw", ".dcm", ".mp4", ".mov")
_NO_IMAGES = (".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md", ".html", ".zip", ".tar", ".gz", ".npy", ".mat")
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def open_picture(content: bytes, name: str) -> Image.Image:
    """A decoded picture, as it is stored; of several frames the first.

    Raises:
        DataError: if the content is not a complete image, or has more pixels than Pillow allows.
    """
    with _naming(name):
        if not content:
            raise ValueError("it is empty")
        picture = Image.open(io.BytesIO(content))
        tag = orientation(picture) if picture.format == "TIFF" else None
        picture.load()
        if tag not in (None, orientation(picture)):
            # Of TIFF files alone, Pillow turns the pixels itself and drops the tag: back to how it is stored.
            picture = _turn(picture, {6: 8, 8: 6}.get(tag, tag))
            picture.getexif()[ExifTags.Base.Orientation] = tag
        # Pillow reads EXIF data when they are asked for, and keeps them: what is damaged there shows up here.
        orientation(picture)
    return picture


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Whatever goes wrong becomes a DataError with the file's name."""
    try:
        yield
    except dataset.DataError:
        raise
    except Image.DecompressionBombError as error:
        raise dataset.DataError(
            f"{name} is too large to be read at once ({error}). Save it as a tiled TIFF with 8 bits a channel, and"
            " cut it into tiles (tile_size)."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise dataset.DataError(
            f"{name} cannot be read as an image (its content is of no known format). {_advice(name)}"
        ) from error
    # Decoders raise what they stumble upon, on damaged files: RuntimeError, struct.error and others.
    except Exception as error:
        raise dataset.DataError(
            f"{name} cannot be read as an image ({error}). Replace it by an intact copy."
        ) from error


def _advice(name: str) -> str:
    """What to do about a file that is no image, by its ending."""
    ending = pathlib.PurePath(name).suffix.lower()
    if ending in _NOT_READ:
        return f"{ending[1:].upper()} is not read: convert it to JPEG or PNG."
    if ending in _NO_IMAGES:
        return "It is no image: move it to another folder."
    return "Replace it by an intact copy."


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation tag, 1 to 8; 1 is upright."""
    tag = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return tag if tag in range(1, 9) else 1


def read_rgb(content: bytes, name: str) -> np.ndarray:
    """The pixels of an image as one sees it, [H, W, 3] uint8.

    Upright by its EXIF tag; on white, where it is transparent; of 16 bits the upper 8.

    Raises:
        DataError: if the content is not a complete image, or its pixels have no known range.
    """
    return to_rgb(open_picture(content, name), name)


def to_rgb(picture: Image.Image, name: str) -> np.ndarray:
    """As `read_rgb`, of a decoded picture."""
    with _naming(name):
        picture = _turn(picture, orientation(picture))
        if picture.mode in _SIXTEEN_BIT_MODES:
            picture = _to_eight_bits(picture, name)
        if picture.mode == "F":
            raise dataset.DataError(f"{name} has floating-point pixels. Save it with 8 or 16 bits a channel.")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        return np.asarray(picture.convert("RGB"))


def _to_eight_bits(picture: Image.Image, name: str) -> Image.Image:
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise dataset.DataError(f"{name} has pixels of more than 16 bits. Save it with 8 or 16 bits a channel.")
    return Image.fromarray((values >> 8).astype(np.uint8))


def compact(content: bytes, picture: Image.Image, name: str) -> bytes:
    """The file as it is, or as PNG if its format is bulky (BMP) or not read everywhere.

    Also as PNG where another program, such as TFDS, which knows no palette, no alpha channel and no EXIF orientation,
    would read other pixels than `read_rgb`.
    """
    is_plain = picture.mode in ("RGB", "L") and orientation(picture) == 1 and not picture.has_transparency_data
    has_eight_bits = picture.format != "PNG" or content[_PNG_DEPTH] == 8
    is_kept = picture.format in _COMPACT_FORMATS and is_plain and has_eight_bits
    return content if is_kept else to_png(to_rgb(picture, name))


def to_png(pixels: np.ndarray) -> bytes:
    """[H, W, 3] uint8 pixels, or a [H, W] mask: bool, with one bit a pixel, or uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def read_values(picture: Image.Image) -> np.ndarray:
    """The values of a mask as stored, [H, W] or, of colours, [H, W, 3]: palette indices, no alpha."""
    if picture.mode in ("RGBA", "RGBa", "CMYK", "YCbCr"):
        picture = picture.convert("RGB")
    if picture.mode in ("LA", "La", "PA"):
        picture = picture.getchannel(0)
    return np.asarray(picture)


def read_alpha(picture: Image.Image) -> np.ndarray:
    """The alpha channel [H, W] of a mask, 255 for opaque.

    Raises:
        DataError: if it has none.
    """
    if not picture.has_transparency_data:
        raise dataset.DataError("A mask has no alpha channel, which foreground='alpha' reads.")
    return np.asarray(picture.convert("RGBA").getchannel("A"))


def upright_mask(mask: Image.Image, *, tag: int, size: tuple[int, int]) -> Image.Image:
    """Turns a mask as its image is turned.

    A mask goes by its own EXIF tag, if it has one. Otherwise it is turned with its image, unless it has the size that
    the image gets by being turned: then it was drawn on the upright image.

    Args:
        mask: as it is stored.
        tag: orientation of the image.
        size: width and height of the image as it is stored.
    """
    of_mask = orientation(mask)
    return _turn(mask, tag if of_mask == 1 and mask.size == size else of_mask)


def _turn(picture: Image.Image, tag: int) -> Image.Image:
    """Upright; ImageOps.exif_transpose would write the EXIF data anew, and fail on what it cannot write."""
    return picture.transpose(_TURNS[tag]) if tag in _TURNS else picture


def turn_boxes(boxes: np.ndarray, tag: int) -> np.ndarray:
    """Boxes [K, 4] of (top, left, bottom, right) shares, turned as an image with this EXIF orientation."""
    if tag >= 5:
        boxes = boxes[:, [1, 0, 3, 2]]
    if tag in (3, 4, 7, 8):
        boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)
    if tag in (2, 3, 6, 7):
        boxes = np.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], axis=1)
    return boxes
