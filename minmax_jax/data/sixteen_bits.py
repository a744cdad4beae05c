"""Colours of 16 bits a channel from Pillow, which keeps their upper 8 bits: it decodes twice, each byte once."""

import io
import sys

import numpy as np
from PIL import Image

from minmax_jax.data import turns

# Pillow's unpackers of the other byte: of values in one byte order, that of the other order takes the lower bits.
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def is_cut(picture: Image.Image, content: bytes) -> bool:
    """Whether Pillow will drop the lower bits of colours.

    Args:
        picture: not loaded yet.
        content: of its file.
    """
    if picture.mode.startswith(("I", "F")):
        return False
    if picture.format == "JPEG2000":
        return _bits_of_jpeg2000(content) > 8
    return _is_ppm(picture) or any(";16" in _raw_mode(tile) for tile in picture.tile)


def _is_ppm(picture: Image.Image) -> bool:
    """Whether it is a binary PPM of 16 bits."""
    return any(tile.codec_name == "ppm" and tile.args[1] > 255 for tile in picture.tile)


def _bits_of_jpeg2000(content: bytes) -> int:
    """Of the first channel, by the marker SIZ."""
    place = content.find(b"\xff\x4f\xff\x51") + 42
    return (content[place] & 127) + 1 if 42 <= place < len(content) else 8


def read(content: bytes, *, page: int = 0) -> np.ndarray:
    """The values of a picture as stored, [H, W] or [H, W, C]; uint16 where 16 bits are, of PNG, PPM and TIFF.

    Args:
        content: of a file that Pillow reads.
        page: of a TIFF.
    """
    picture = _open(content, page)
    if not is_cut(picture, content) or picture.format not in ("PNG", "PPM", "TIFF"):
        return _values(picture)
    if _is_ppm(picture):
        (tile,), shape = picture.tile, (picture.height, picture.width, -1)
        values = np.frombuffer(content, ">u2", 3 * picture.height * picture.width, tile.offset).reshape(shape)
        return (values.astype(np.uint32) * 65535 // tile.args[1]).astype(np.uint16)
    if _raw_mode(picture.tile[0]) == "LA;16B":  # in the four bytes of one pixel
        pairs = _values(_with_raw_mode(picture, lambda mode: "RGBA")).astype(np.uint16)
        return pairs[..., 0::2] << 8 | pairs[..., 1::2]
    lower = _with_raw_mode(_open(content, page), lambda mode: mode[:-1] + _OTHER_BYTE[mode[-1]])
    return _values(picture).astype(np.uint16) << 8 | _values(lower)


def _open(content: bytes, page: int) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    if page:
        picture.seek(page)
    return picture


def _values(picture: Image.Image) -> np.ndarray:
    """As stored: of TIFF files alone, Pillow turns the pixels when it loads them."""
    tag = turns.tag_of(picture) if picture.format == "TIFF" else 1
    picture.load()
    return np.asarray(turns.as_stored(picture, tag) if tag != turns.tag_of(picture) else picture)


def _with_raw_mode(picture: Image.Image, change) -> Image.Image:
    picture.tile = [
        tile._replace(args=change(tile.args) if isinstance(tile.args, str) else (change(tile.args[0]), *tile.args[1:]))
        for tile in picture.tile
    ]
    return picture


def _raw_mode(tile) -> str:
    arguments = tile.args
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments or "")
