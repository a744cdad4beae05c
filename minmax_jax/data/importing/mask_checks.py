"""Looks at some masks of own images before all are read: do they hold what the default rule expects?"""

from collections.abc import Sequence
import contextlib
import logging

import numpy as np
from PIL import Image

from minmax_jax.data import dataset, image_files, raw_files
from minmax_jax.data.importing import raw_dataset

logger = logging.getLogger(__name__)
_MAX_READ = 20
_MAX_SHOWN = 6


def warn_of_values(raw: raw_dataset.RawDataset) -> None:
    """Warns of masks with more than two values, and of those whose shapes are in the alpha channel.

    The rule that reads them, every value above 0, makes one foreground of several classes, of the pixels between two
    classes (often 255), and of smooth edges.

    Args:
        raw: of which a few masks are read, evenly spaced.
    """
    paths = [item.mask for item in raw if item.mask]
    several, alpha, pictures = [], [], _open(paths[:: len(paths) // _MAX_READ + 1])
    for path, picture in pictures:
        values = _distinct(image_files.read_values(picture))
        if len(values) > 2:
            several.append((path, values))
        elif len(values) == 1 and picture.has_transparency_data and len(np.unique(image_files.read_alpha(picture))) > 1:
            alpha.append(path)
    if several:
        path, values = several[0]
        shown = ", ".join(map(str, values[:_MAX_SHOWN])) + (", ..." if len(values) > _MAX_SHOWN else "")
        logger.warning(
            "%d of %d masks that were looked at have more than two values; %s has %s. All above 0 are read as"
            " foreground. foreground=1 or '>127' reads other values, ignore=255 leaves pixels out of the evaluation.",
            *(len(several), len(pictures), path, shown),
        )
    if alpha:
        logger.warning(
            "%d of %d masks that were looked at have one colour and an alpha channel, such as %s. foreground=alpha"
            " reads that.",
            *(len(alpha), len(pictures), alpha[0]),
        )


def _open(paths: Sequence[raw_files.Path]) -> list[tuple[raw_files.Path, Image.Image]]:
    pictures = []
    for path in paths:
        with contextlib.suppress(dataset.DataError):  # the check of all files names it
            pictures.append((path, image_files.open_picture(raw_files.read_file(path), str(path))))
    return pictures


def _distinct(values: np.ndarray) -> list:
    """The values of a mask, of colours those of (red, green, blue), in ascending order."""
    if values.ndim == 2:
        return np.unique(values).tolist()
    packed = np.unique(values.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    return [(value >> 16, value >> 8 & 255, value & 255) for value in packed.tolist()]
