"""PNG files of any size, written some rows at a time."""

from collections.abc import Iterable
import pathlib
import struct
from typing import IO
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0  # color type
_UP = 2  # filter of a row: differences from the row above; of a mask, nearly all are 0
_METRE = 1  # unit of resolutions
_LEVEL = 6  # of the compression
_MAX_PER_METRE = 2**31 - 1


def write(
    path: pathlib.Path, size: tuple[int, int], bands: Iterable[np.ndarray], *, microns: float | None = None
) -> None:
    """Writes a grey picture.

    Args:
        path: of the file.
        size: (H, W).
        bands: [n, W] uint8 from top to bottom, H rows in all; one is in memory.
        microns: a pixel, None if unknown.
    """
    compressor, above = zlib.compressobj(_LEVEL), np.zeros((1, size[1]), np.uint8)
    with path.open("wb") as file:
        file.write(_SIGNATURE)
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, _GREY, 0, 0, 0))
        if microns and 0 < (per_metre := round(1e6 / microns)) <= _MAX_PER_METRE:
            _write_chunk(file, b"pHYs", struct.pack(">IIB", per_metre, per_metre, _METRE))
        for band in bands:
            rows = np.full((len(band), size[1] + 1), _UP, np.uint8)
            np.subtract(band, np.concatenate([above, band[:-1]]), out=rows[:, 1:])
            _write_chunk(file, b"IDAT", compressor.compress(rows))
            above = band[-1:]
        _write_chunk(file, b"IDAT", compressor.flush())
        _write_chunk(file, b"IEND", b"")


def _write_chunk(file: IO[bytes], kind: bytes, content: bytes) -> None:
    if content or kind == b"IEND":
        file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
