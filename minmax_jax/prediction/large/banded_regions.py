"""Regions of a mask that is read band by band: what continues in the next band is one region."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from minmax_jax.prediction.large import resampling
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.outputs import regions
from minmax_jax.prediction.outputs.regions import Region


def find(mask: DiskArray, labels: DiskArray, *, threshold: float, min_area: int = 1) -> list[Region]:
    """As `regions.find`, with a band in memory.

    Args:
        mask: [H, W] soft mask.
        labels: [H, W] int32; the number of each pixel's region is written to it, 0 where there is none.
        threshold: a pixel is foreground where the mask is at least this.
        min_area: regions with fewer pixels are left out.
    """
    bands, parts, pairs = list(resampling.bands(*mask.shape)), [], []
    above = np.zeros(mask.shape[1], np.int32)  # the last row of the band before
    for top, bottom in bands:
        of_band, found = _find_parts(mask[top:bottom, :], threshold, min_area)
        of_band[of_band > 0] += len(parts)
        parts += [_move(part, top) for part in found]
        labels[top:bottom] = of_band
        pairs.append(_touching(above, of_band[0]))
        above = of_band[-1]
    wholes = _join(len(parts), np.concatenate(pairs))
    merged: dict[int, Region] = {}
    for part, whole in zip(parts, wholes.tolist()):
        merged[whole] = _merge(merged[whole], part) if whole in merged else part
    kept = {whole: region for whole, region in merged.items() if region.area >= min_area}
    numbers = np.zeros(len(merged), np.int32)
    numbers[list(kept)] = np.arange(1, len(kept) + 1)
    of_parts = np.concatenate([np.zeros(1, np.int32), numbers[wholes]])
    for top, bottom in bands:
        labels[top:bottom] = of_parts[labels[top:bottom, :]]
    return list(kept.values())


def _find_parts(band: np.ndarray, threshold: float, min_area: int) -> tuple[np.ndarray, list[Region]]:
    """The regions of a band, without small ones that continue in no other band: noise has millions."""
    labels, found = regions.find(band, threshold=threshold)
    kept = [part.area >= min_area or part.box[0] == 0 or part.box[2] == len(band) for part in found]
    numbers = np.where(kept, np.cumsum(kept), 0)
    labels = np.concatenate([[0], numbers]).astype(np.int32)[labels]
    return labels, [part for part, is_kept in zip(found, kept) if is_kept]


def _move(part: Region, top: int) -> Region:
    first, left, last, right = part.box
    return part._replace(
        box=(first + top, left, last + top, right), centroid=(part.centroid[0] + top, part.centroid[1])
    )


def _touching(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """[K, 2] pairs of numbers in two rows [W] that touch each other, also at corners."""
    pairs = [
        np.stack(
            [above[max(0, -shift) : len(above) - max(0, shift)], below[max(0, shift) : len(below) - max(0, -shift)]]
        )
        for shift in (-1, 0, 1)
    ]
    pairs = np.concatenate(pairs, axis=1).T
    return np.unique(pairs[pairs.all(axis=1)], axis=0)


def _join(count: int, pairs: np.ndarray) -> np.ndarray:
    """[count] for each part, numbered from 1 in the pairs, the index of the whole that it belongs to."""
    graph = sparse.coo_array((np.ones(len(pairs), bool), tuple(pairs.T - 1)), (count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def _merge(*parts: Region) -> Region:
    tops, lefts, bottoms, rights = zip(*(part.box for part in parts))
    areas = [part.area for part in parts]

    def mean(values: Sequence) -> np.ndarray:
        return np.average(values, axis=0, weights=areas)

    return Region(
        box=(min(tops), min(lefts), max(bottoms), max(rights)),
        area=sum(areas),
        mean_value=float(mean([part.mean_value for part in parts])),
        centroid=tuple(mean([part.centroid for part in parts]).tolist()),
    )
