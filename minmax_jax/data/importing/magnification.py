"""Pixel sizes of a raw dataset: what its files say, whether they agree, and what brings them to one size."""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import pathlib

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.data import pixel_size, raw_files
from minmax_jax.data.importing import problems, raw_dataset

logger = logging.getLogger(__name__)
_MAX_GROUPS = 5
_RANGE = (1e-3, 1e3)  # microns, of a pixel

# Microns a pixel of each image file, None where it is unknown.
Sizes = Mapping[raw_files.Path, float | None]


def read(raw: raw_dataset.RawDataset, *, given: float = 0.0) -> Sizes:
    """Reads the headers of all image files; says which of their sizes are ignored.

    Args:
        raw: the dataset.
        given: microns a pixel of files that do not say it, or whose size is ignored; 0: unknown.

    Raises:
        OptionError: for a number out of range.
    """
    if given:
        check_range("microns_per_pixel", given)
    said = {item.image: pixel_size.read(item.image) for item in raw if isinstance(item.image, pathlib.Path)}
    ignored = [(str(path), size.sides, size.ignored) for path, size in said.items() if size.ignored]
    if not given:
        for line in pixel_size.describe_ignored(ignored, len(said)):
            logger.warning("%s", line)
    others = [(path, size.microns) for path, size in said.items() if size.microns]
    others = [(path, microns) for path, microns in others if given and not pixel_size.is_same(microns, given)]
    if others:
        logger.warning(
            "microns_per_pixel=%g is for files that do not say it; %d of %d do and have another size, such as %s with"
            " %.4g, which counts.",
            *(given, len(others), len(said), *others[0]),
        )
    return {path: size.microns or given or None for path, size in said.items()}


def check_range(name: str, microns: float) -> None:
    """Raises OptionError for a pixel size that nothing has."""
    if not _RANGE[0] <= microns <= _RANGE[1]:
        raise OptionError(f"{name}={microns:g} must be from {_RANGE[0]:g} to {_RANGE[1]:g} microns a pixel.")


def common(sizes: Sequence[float | None]) -> float:
    """The median of sizes that agree within 10 %; 0 where they do not, or where one is unknown."""
    if not sizes or None in sizes or not pixel_size.is_same(min(sizes), max(sizes)):
        return 0.0
    return float(np.median(sizes))


def record(raw: raw_dataset.RawDataset, sizes: Sizes) -> raw_dataset.RawDataset:
    """The dataset of whole images with their pixel size, where they agree; what does not is said."""
    _warn_of_differences(
        list(sizes.values()),
        "image",
        "The networks see them at different magnifications: resize them to one pixel size first, or cut tiles by"
        " tile_size and tile_microns.",
    )
    return dataclasses.replace(raw, microns_per_pixel=common(list(sizes.values())))


def warn_of_tiles(sizes: Sizes, *, side: int, scale: float) -> None:
    """Says where slides of different magnification are cut alike, and what to do.

    Args:
        sizes: of the slides.
        side: of a tile, in pixels.
        scale: share of full resolution at which slides are cut.
    """
    known = [size for size in sizes.values() if size]
    maximum = max(known, default=0.0) / scale
    _warn_of_differences(
        list(sizes.values()),
        "slide",
        f"Tiles of one number of pixels show them at different magnifications: tile_microns={side * maximum:.4g}"
        f" brings all to {maximum:.4g} microns a pixel.",
    )


def warn_of_enlarged(sizes: Sizes, microns: float, *, side: int) -> None:
    """Says which slides have larger pixels than their tiles.

    Args:
        sizes: of the slides.
        microns: a pixel of the tiles.
        side: of a tile, in pixels.
    """
    enlarged = [(path, size) for path, size in sizes.items() if size and pixel_size.rescaling(size, microns) > 1]
    if enlarged:
        path, size = max(enlarged, key=lambda pair: pair[1])
        logger.warning(
            "%d of %d slides are enlarged, such as %s from %.4g to %.4g microns a pixel, and show less detail than the"
            " others. tile_microns=%.4g would enlarge none.",
            *(len(enlarged), len(sizes), path, size, microns, side * size),
        )


def find_unknown(raw: raw_dataset.RawDataset, sizes: Sizes) -> list[problems.Problem]:
    """The images whose size must be known and is not; files that are missing are left to the check of all files."""
    return [
        problems.Problem(
            split,
            item.name,
            f"{problems.printable(item.image)} does not say how many microns a pixel has, which tile_microns needs."
            " Give it by microns_per_pixel, for all files that do not say it, or leave out the image.",
            item.class_name,
        )
        for split, items in raw.splits.items()
        for item in items
        if not sizes.get(item.image) and item.image.is_file()
    ]


def _warn_of_differences(sizes: Sequence[float | None], noun: str, advice: str) -> None:
    known = sorted(size for size in sizes if size)
    groups: list[list[float]] = []
    for size in known:
        if groups and pixel_size.is_same(groups[-1][0], size):
            groups[-1].append(size)
        else:
            groups.append([size])
    if len(groups) > 1:
        shown = [
            f"{len(group)} {noun}{'s' if len(group) > 1 else ''} of {np.median(group):.4g}"
            for group in groups[:_MAX_GROUPS]
        ]
        others = f", and {len(groups) - _MAX_GROUPS} further sizes" if len(groups) > _MAX_GROUPS else ""
        logger.warning("Pixel sizes differ: %s microns a pixel%s. %s", " and ".join(shown), others, advice)
    elif known and len(known) < len(sizes):
        logger.warning(
            "%d of %d %ss do not say how many microns a pixel has, so that no pixel size is recorded for the dataset;"
            " the others have %.4g. Give it by microns_per_pixel.",
            *(len(sizes) - len(known), len(sizes), noun, np.median(known)),
        )
