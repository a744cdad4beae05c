"""Small tiled TIFF files, as OpenSlide reads them, byte by byte."""

import struct

import numpy as np

_SHORT, _LONG = 3, 4


def encode(*levels: np.ndarray, side: int = 64, missing: int | None = None, compression: int = 1) -> bytes:
    """A little-endian TIFF, uncompressed.

    Args:
        levels: [H, W, C] or [H, W] uint8, three channels are colours, the largest first.
        side: of the file's tiles.
        missing: of the first level, the index of a tile of which the file holds nothing.
        compression: that the file claims to have; 1 is none.
    """
    content, place = b"II" + struct.pack("<HI", 42, 8), 4
    for level, pixels in enumerate(levels):
        height, width = pixels.shape[:2]
        rows, columns = -(-height // side), -(-width // side)
        padding = [(0, rows * side - height), (0, columns * side - width)] + [(0, 0)] * (pixels.ndim - 2)
        padded = np.pad(pixels, padding)
        offsets, counts = [], []
        for row in range(rows):
            for column in range(columns):
                tile = padded[row * side :, column * side :][:side, :side]
                tile = b"" if (level, len(counts)) == (0, missing) else tile.tobytes()
                offsets.append(len(content) if tile else 0)
                counts.append(len(tile))
                content += tile
        content = content[:place] + struct.pack("<I", len(content)) + content[place + 4 :]
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        directory, place = _directory(
            {
                254: (_LONG, [int(level > 0)]),  # a reduced image
                256: (_LONG, [width]),
                257: (_LONG, [height]),
                258: (_SHORT, [8] * channels),
                259: (_SHORT, [compression]),
                262: (_SHORT, [2 if channels == 3 else 1]),  # colours, or black is 0
                277: (_SHORT, [channels]),
                284: (_SHORT, [1]),
                322: (_LONG, [side]),
                323: (_LONG, [side]),
                324: (_LONG, offsets),
                325: (_LONG, counts),
            },
            len(content),
        )
        content += directory
    return content


def _directory(tags, start):
    """The directory at `start`, whose last entry tells of no next one, and where that entry is."""
    place = start + 2 + 12 * len(tags)
    entries, values = struct.pack("<H", len(tags)), b""
    for tag, (kind, numbers) in tags.items():
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == _SHORT else 'I'}", *numbers)
        if len(packed) > 4:
            packed, values = struct.pack("<I", place + 4 + len(values)), values + packed
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    return entries + struct.pack("<I", 0) + values, place
