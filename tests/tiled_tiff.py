"""Small tiled TIFF files, as OpenSlide reads them."""

import io

import numpy as np
import tifffile


def encode(*levels: np.ndarray, side: int = 64, missing: int | None = None, compression: int = 1, **options) -> bytes:
    """A little-endian TIFF, uncompressed.

    Args:
        levels: [H, W, C] or [H, W] uint8, three channels are colours, the largest first.
        side: of the file's tiles.
        missing: of the first level, the index of a tile of which the file holds nothing.
        compression: that the file claims to have; 1 is none.
        options: of `tifffile.TiffWriter.write`, such as a resolution.
    """
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder="<") as file:
        for level, pixels in enumerate(levels):
            options |= {"tile": (side, side), "subfiletype": int(level > 0), "metadata": None, "software": False}
            options |= {"photometric": "rgb" if pixels.shape[2:] == (3,) else "minisblack"}
            file.write(pixels, planarconfig="contig" if pixels.ndim == 3 else None, **options)
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        for page in file.pages:
            page.tags["Compression"].overwrite(compression)
        for name in ("TileOffsets", "TileByteCounts") if missing is not None else ():
            tag = file.pages[0].tags[name]
            tag.overwrite([0 if tile == missing else value for tile, value in enumerate(tag.value)])
    return buffer.getvalue()
