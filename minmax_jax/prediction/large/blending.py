"""Masks of overlapping tiles become one mask: a mean, in which the middle of a tile counts more than its border."""

from collections.abc import Iterable
import dataclasses
import itertools
import math

import numpy as np

from minmax_jax.prediction.large.disk_arrays import DiskArray


@dataclasses.dataclass(frozen=True)
class Grid:
    """Tiles of one size that cover an image.

    Attributes:
        size: (height, width) of the image.
        sides: (height, width) of a tile.
        tops: first rows of the tiles, from 0 on.
        lefts: first columns.
    """

    size: tuple[int, int]
    sides: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def windows(self) -> list[tuple[int, int, int, int]]:
        """(top, left, bottom, right) of each tile, in rows."""
        height, width = self.sides
        return [(top, left, top + height, left + width) for top, left in itertools.product(self.tops, self.lefts)]


def create_grid(size: tuple[int, int], side: int, *, overlap: float) -> Grid:
    """Tiles at equal distances, the first and the last at the borders.

    Args:
        size: (height, width) of the image.
        side: of a tile; where the image is smaller, its own.
        overlap: minimum share of a tile that the next one shows as well, below 1.
    """
    sides = tuple(min(side, length) for length in size)
    return Grid(size, sides, *(_starts(*lengths, overlap) for lengths in zip(size, sides)))


def _starts(length: int, side: int, overlap: float) -> tuple[int, ...]:
    count = 1 + math.ceil((length - side) / max(1, int(side * (1 - overlap))))
    return tuple(np.linspace(0, length - side, count).round().astype(int).tolist())


def blend(out: DiskArray | np.ndarray, grid: Grid, tiles: Iterable[np.ndarray]) -> None:
    """Writes the weighted mean of the tiles at each pixel.

    Args:
        out: [H, W], of the grid's size.
        grid: places of the tiles.
        tiles: masks, in the order of the grid's windows; one row of them is in memory.
    """
    (height, width), tiles = grid.sides, iter(tiles)
    down, across = _weights(grid.tops, height), _weights(grid.lefts, width)
    total = np.zeros((height, grid.size[1]), np.float32)
    for top, end, rows in zip(grid.tops, (*grid.tops[1:], grid.size[0]), down):
        for left, columns in zip(grid.lefts, across):
            total[:, left : left + width] += np.outer(rows, columns) * next(tiles)
        done = end - top  # rows that no other tile reaches
        out[top:end] = total[:done]
        total[: height - done] = total[done:]
        total[height - done :] = 0


def _weights(starts: tuple[int, ...], side: int) -> list[np.ndarray]:
    """[side] weights of each tile along an axis: sin^2, divided by the sum of all tiles at each place."""
    profile = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(starts[-1] + side)
    for start in starts:
        total[start : start + side] += profile
    return [(profile / total[start : start + side]).astype(np.float32) for start in starts]
