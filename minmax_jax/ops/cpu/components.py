"""Overlaps of boxes at all thresholds of a map: the C kernel, and the same in SciPy without a compiler."""

import ctypes

import numpy as np
from scipy import ndimage

from minmax_jax.ops.cpu import library

NUM_LEVELS = 256
_EIGHT = np.ones((3, 3), int)  # neighbours that are connected


def box_overlaps(levels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU of true boxes with the boxes of the regions of {level > v}, for v = 0 ... 255.

    Regions are connected by eight neighbours. IoU counts inclusive pixels.

    Args:
        levels: [H, W] uint8.
        truth: [K, 4] true boxes (top, left, bottom, right), whole pixels, inclusive; K at least 1.

    Returns:
        [256] maximum IoU of the largest region's box (by area; the first, along the rows, of equal ones) with a true
        box, and [256] maximum IoU of any region's box with one; 0 where there is no region.
    """
    levels, truth = np.ascontiguousarray(levels, np.uint8), np.ascontiguousarray(truth, np.int32)
    function = library.host_function("box_overlaps")
    if function is None:
        return box_overlaps_without_compiler(levels, truth)
    largest, best = np.empty(NUM_LEVELS), np.empty(NUM_LEVELS)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (levels, truth, largest, best)]
    if function(
        pointers[0], *map(ctypes.c_int32, levels.shape), pointers[1], ctypes.c_int32(len(truth)), *pointers[2:]
    ):
        raise MemoryError("no memory for the regions of a map")
    return largest, best


def box_overlaps_without_compiler(levels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`box_overlaps`, one threshold after another."""
    largest, best = np.zeros(NUM_LEVELS), np.zeros(NUM_LEVELS)
    present = np.unique(levels)
    for below, level in zip([-1, *present[:-1]], present):  # the regions change where a level occurs
        regions, _ = ndimage.label(levels >= level, _EIGHT)
        slices = ndimage.find_objects(regions)
        boxes = np.array([(y.start, x.start, y.stop - 1, x.stop - 1) for y, x in slices])
        overlaps = box_iou(boxes, truth).max(axis=1)
        thresholds = slice(max(below, 0), level)
        largest[thresholds] = overlaps[np.argmax(np.bincount(regions.ravel())[1:])]
        best[thresholds] = overlaps.max()
    return largest, best


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N, M] IoU of [N, 4] and [M, 4] boxes (top, left, bottom, right) of whole pixels, inclusive."""
    boxes, others = np.asarray(boxes, float)[:, None], np.asarray(others, float)[None]
    starts, ends = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    both = np.prod(np.maximum(ends - starts + 1, 0), axis=-1)
    first, second = (np.prod(array[..., 2:] - array[..., :2] + 1, axis=-1) for array in (boxes, others))
    return both / (first + second - both)
