"""Masks as COCO stores them: run lengths along the columns, zeros first."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def parse(segmentation: Mapping[str, Any]) -> tuple[np.ndarray, tuple[int, int]]:
    """The run lengths and the height and width of {"size": [H, W], "counts": ...}.

    Counts are a list, or a text of them compressed as pycocotools does. pycocotools itself returns memory that nothing
    was written to where they do not add up to the number of pixels.

    Raises:
        ValueError: for anything else.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError(f"the run lengths have the size {size!r}, which is not [height, width]")
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not (isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)):
        raise ValueError("the run lengths are not whole numbers from 0")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(
            f"the run lengths add up to {sum(counts)} pixels, not to the {size[0]} x {size[1]} of its size"
        )
    return np.array(counts, np.int64), tuple(size)


def _decompress(text: str) -> list[int]:
    """Counts of a text: digits of five bits with a sign, lowest first; from the third, differences to two before."""
    counts, value, shift = [], 0, 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError("the compressed run lengths are damaged")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths are cut off")
    return counts


def decode(counts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask [H, W] bool."""
    height, width = size
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
