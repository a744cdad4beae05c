"""Encoded image files of any kind that Pillow reads, to pixels and back. The content determines the format."""

from collections.abc import Iterator
import contextlib
import io

import numpy as np
from PIL import ExifTags, Image

from minmax_jax.data import dataset, tiff_files, turns, unread_formats

NO_RANGE = "Save it with 8 or 16 bits a channel, or prepare the data with --intensity=percentiles."
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def open_picture(content: bytes, name: str) -> Image.Image:
    """A decoded picture, as it is stored; of several frames the first.

    Raises:
        DataError: if the content is not a complete image, or has more pixels than Pillow allows.
    """
    with naming_file(name, content):
        if not content:
            raise ValueError("it is empty")
        picture = Image.open(io.BytesIO(content))
        if picture.format in unread_formats.RECOGNIZED_ONLY:
            raise dataset.DataError(f"{name} cannot be read as an image. {unread_formats.refusal(picture.format)}")
        tag = orientation(picture) if picture.format == "TIFF" else None
        picture.load()
        if tag not in (None, orientation(picture)):
            # Of TIFF files alone, Pillow turns the pixels itself and drops the tag: back to how it is stored.
            picture = turns.as_stored(picture, tag)
            picture.getexif()[ExifTags.Base.Orientation] = tag
        # Pillow reads EXIF data when they are asked for, and keeps them: what is damaged there shows up here.
        orientation(picture)
    return picture


@contextlib.contextmanager
def naming_file(name: str, content: bytes = b"") -> Iterator[None]:
    """Whatever goes wrong with the content of a file becomes a DataError with its name."""
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
        if reason := _explain_tiff(content, is_unknown=True):
            raise dataset.DataError(f"{name} {reason}") from error
        raise dataset.DataError(
            f"{name} cannot be read as an image (its content is of no known format)."
            f" {unread_formats.advice(content, name)}"
        ) from error
    # Decoders raise what they stumble upon, on damaged files: RuntimeError, struct.error and others.
    except Exception as error:
        if reason := _explain_tiff(content, is_unknown=False):
            raise dataset.DataError(f"{name} {reason}") from error
        raise dataset.DataError(
            f"{name} cannot be read as an image ({error}). {unread_formats.advice_for(error)}"
        ) from error


def _explain_tiff(content: bytes, *, is_unknown: bool) -> str:
    """Why an intact TIFF is not read; "" for other files, and for what may be damaged.

    Args:
        content: of the file.
        is_unknown: whether Pillow does not know the kind of its pixels.
    """
    tiff = tiff_files.describe(io.BytesIO(content)) if tiff_files.is_tiff(content) else None
    if tiff is None:
        return ""
    if reason := tiff_files.explain(tiff):
        return reason
    kind = tiff_files.describe_kind(tiff)
    return f"has {kind}, which is not read here: save it as grey or RGB with 8 or 16 bits." if is_unknown else ""


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation tag, 1 to 8; 1 is upright."""
    return turns.tag_of(picture)


def read_rgb(content: bytes, name: str) -> np.ndarray:
    """The pixels of an image as one sees it, [H, W, 3] uint8.

    Upright by its EXIF tag; on white, where it is transparent; of 16 bits the upper 8.

    Raises:
        DataError: if the content is not a complete image, or its pixels have no known range.
    """
    return to_rgb(open_picture(content, name), name)


def to_rgb(picture: Image.Image, name: str) -> np.ndarray:
    """As `read_rgb`, of a decoded picture."""
    with naming_file(name):
        picture = turns.upright(picture, orientation(picture))
        if picture.mode in SIXTEEN_BIT_MODES:
            picture = _to_eight_bits(picture, name)
        if picture.mode == "F":
            raise dataset.DataError(f"{name} has floating-point pixels. {NO_RANGE}")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        return np.asarray(picture.convert("RGB"))


def _to_eight_bits(picture: Image.Image, name: str) -> Image.Image:
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise dataset.DataError(f"{name} has pixels of more than 16 bits. {NO_RANGE}")
    return Image.fromarray((values >> 8).astype(np.uint8))


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
    return turns.upright(mask, tag if of_mask == 1 and mask.size == size else of_mask)


def turn_boxes(boxes: np.ndarray, tag: int) -> np.ndarray:
    """Boxes [K, 4] of (top, left, bottom, right) shares, turned as an image with this EXIF orientation."""
    if tag >= 5:
        boxes = boxes[:, [1, 0, 3, 2]]
    if tag in (3, 4, 7, 8):
        boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)
    if tag in (2, 3, 6, 7):
        boxes = np.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], axis=1)
    return boxes
