"""The pages of a TIFF, decoded by tifffile or, where that lacks the codec, by Pillow: values as they are stored."""

from collections.abc import Sequence
import io
import itertools
import math
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from minmax_jax.data import sixteen_bits, tiff_files

_MAX_BYTES = 1 << 31  # of a decoded page


class NotReadError(ValueError):
    """An intact file that is not read; the text goes on after the name of the file."""


def read(content: bytes, tiff: tiff_files.Tiff, channels: Sequence[int]) -> np.ndarray:
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
    if math.prod(tiff.size) * tiff.num_samples * tiff.bits > 8 * _MAX_BYTES:
        raise NotReadError(f"has {tiff_files.describe_kind(tiff)}: more than 2 GiB. Save the channels one by one.")
    with tiff_files.without_log(), tifffile.TiffFile(io.BytesIO(content)) as opened:
        if not channels:
            values = _read_page(opened, content, 0)
        else:
            places = [_place(opened, tiff, channel) for channel in channels]
            pages = {number: _read_page(opened, content, number) for number in dict.fromkeys(p for p, _ in places)}
            values = np.stack([pages[number][..., sample] for number, sample in places], axis=-1)
    if tiff.photometric == tiff_files.WHITE_IS_ZERO and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    if values.dtype == np.uint16 and tiff.bits < 16:
        values = values << (16 - tiff.bits)
    return values


def _place(opened: Any, tiff: tiff_files.Tiff, channel: int) -> tuple[int, int]:
    """Page and sample of a channel."""
    axes, shape = tiff_files.leading(opened)
    page, sample = divmod(channel, tiff.num_samples)
    counted = "IQ" if tiff.pages_may_be_channels else "C"
    places = itertools.product(*(range(size if axis in counted else 1) for axis, size in zip(axes, shape)))
    # Other dimensions: their first place. The numbers of pages count all of them.
    found = next(itertools.islice(places, page, None))
    return int(np.ravel_multi_index(found, shape)) if shape else 0, sample


def _read_page(opened: Any, content: bytes, number: int) -> np.ndarray:
    """A page of the first image, [H, W, S]."""
    series = opened.series[0] if tiff_files.leading(opened)[1] else None
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
        compression = tiff_files.name_compression(page.compression)
    if int(page.compression) in TiffImagePlugin.COMPRESSION_INFO:
        try:
            values = sixteen_bits.read(content, page=page.index)
        except (OSError, SyntaxError) as error:
            # A kind of pixels that Pillow does not know, or perhaps a codec that libtiff lacks; else it is damaged.
            is_unknown = not isinstance(error, OSError) or isinstance(error, Image.UnidentifiedImageError)
            if not is_unknown and int(page.compression) not in tiff_files.OPTIONAL:
                raise
            values = None
        if values is not None and values.size == math.prod(page.shape):
            return values.reshape(page.shape) if page.axes[0] != "S" else np.moveaxis(values, -1, 0)
    kind = f"{tiff_files.bits_of(page)}-bit pixels with {page.samplesperpixel} channel(s)"
    raise NotReadError(
        f"cannot be read: its compression ({compression}) of {kind} is not supported: save it with deflate or without"
        " compression, or install imagecodecs (pip install imagecodecs)."
    )
