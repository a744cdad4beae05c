"""Soft masks as pyramids of tiles in OME-TIFF, which viewers of slides lay over a slide."""

from collections.abc import Iterator
import hashlib
import itertools
import pathlib
import uuid

import numpy as np

from minmax_jax.prediction.large import resampling
from minmax_jax.prediction.large.disk_arrays import DiskArray

_TILE = 512  # side in pixels
_DEFLATE = "zlib"  # the only compression that all readers know and that needs no further package
_MAX_CLASSIC = 1 << 31  # bytes without compression; larger files have 64-bit offsets (BigTIFF)


def write(
    path: pathlib.Path,
    mask: np.ndarray | DiskArray,
    *,
    microns: tuple[float, float] | None,
    scratch: pathlib.Path,
) -> None:
    """Writes a mask of 8 bits, 255 where it is 1, and reduced copies of it, each half as large, in the SubIFDs.

    Args:
        path: of the file.
        mask: [h, w] in [0, 1]; of a `DiskArray`, some tiles are in memory.
        microns: a pixel of the mask, (across, down); None if unknown.
        scratch: folder for the reduced copies of a `DiskArray`.
    """
    import tifffile  # takes a quarter of a second

    levels = list(_levels(mask, scratch))
    physical = {}
    if microns:
        physical = {"PhysicalSizeX": microns[0], "PhysicalSizeXUnit": "µm"}
        physical |= {"PhysicalSizeY": microns[1], "PhysicalSizeYUnit": "µm"}
    metadata = {"axes": "YX", "Channel": {"Name": "Soft mask"}, "UUID": _identify(path.name, mask), **physical}
    is_large = 4 / 3 * mask.shape[0] * mask.shape[1] > _MAX_CLASSIC
    with tifffile.TiffWriter(path, ome=True, bigtiff=is_large) as file:
        for number, level in enumerate(levels):
            place = {"subfiletype": 1, "metadata": None} if number else {"metadata": metadata}
            if microns:
                per_pixel = (side * mask.shape[1 - axis] / level.shape[1 - axis] for axis, side in enumerate(microns))
                place |= {"resolution": tuple(1e4 / side for side in per_pixel), "resolutionunit": "CENTIMETER"}
            if number == 0:
                place |= {"subifds": len(levels) - 1}
            file.write(
                _tiles(level),
                shape=level.shape,
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                compression=_DEFLATE,
                photometric="minisblack",
                **place,
            )


def _identify(name: str, mask: np.ndarray | DiskArray) -> str:
    """A UUID of name and values: one mask is one file; tifffile's has the time and the machine's network address."""
    sha = hashlib.sha256(f"{name} {tuple(mask.shape)}".encode(errors="surrogateescape"))
    for top, bottom in resampling.bands(*mask.shape):
        sha.update(_in_bytes(mask[top:bottom, :]).tobytes())
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, sha.hexdigest())}"


def _levels(mask: np.ndarray | DiskArray, scratch: pathlib.Path) -> Iterator[np.ndarray | DiskArray]:
    """The mask, and reduced copies of 8 bits until one fits in a tile."""
    yield mask
    level, number = mask, 0
    while max(level.shape) > _TILE:
        shape, number = tuple(-(-side // 2) for side in level.shape), number + 1
        if isinstance(mask, DiskArray):
            half = DiskArray(scratch / f"level_{number}", shape, np.uint8)
        else:
            half = np.empty(shape, np.uint8)
        for top, bottom in resampling.bands(shape[0], 4 * shape[1]):
            half[top:bottom] = _reduce(_in_bytes(level[2 * top : 2 * bottom, :]))
        yield half
        level = half


def _reduce(rows: np.ndarray) -> np.ndarray:
    """Means of two by two pixels; an odd last row or column counts twice."""
    padded = np.pad(rows, [(0, side % 2) for side in rows.shape], mode="edge").astype(np.uint16)
    total = padded[0::2] + padded[1::2]
    return ((total[:, 0::2] + total[:, 1::2] + 2) // 4).astype(np.uint8)


def _in_bytes(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _tiles(level: np.ndarray | DiskArray) -> Iterator[np.ndarray]:
    """All of one size, zeros beyond the mask."""
    for top, left in itertools.product(range(0, level.shape[0], _TILE), range(0, level.shape[1], _TILE)):
        values = _in_bytes(level[top : top + _TILE, left : left + _TILE])
        yield np.pad(values, [(0, _TILE - side) for side in values.shape])
