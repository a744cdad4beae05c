"""The mask of a large image, read window by window."""

from collections.abc import Callable
import logging
import pathlib

import numpy as np
from PIL import Image, TiffImagePlugin

from minmax_jax.data import dataset, image_files, slide_windows
from minmax_jax.data.importing import mask_rules
from minmax_jax.data.slide_windows import Box
from minmax_jax.data.slides import LargeImage

logger = logging.getLogger(__name__)
# Of masks that have the same values in the RGBA that OpenSlide makes of everything. One bit a pixel it does not read.
_EXACT_MODES = ("L", "RGB")


def open_mask(path: pathlib.Path, image: LargeImage, *, rule: mask_rules.Rule) -> LargeImage:
    """Opens the mask of an image, which may have fewer pixels but the same shape; boxes are given in the image's.

    The mask of a slide with bounds may cover them or the whole slide: its shape decides.

    Args:
        path: of the mask.
        image: the image of this mask.
        rule: which values are foreground.

    Raises:
        DataError: if it is missing, is not a complete image, has another shape than its image, or is a JPEG while the
            rule needs exact values; `read` raises it where the file is damaged.
    """
    crop, (height, width) = _open_values(path, image, rule)
    (top, left), covered = _find_frame(path, (height, width), image)
    scale = (height / covered[0], width / covered[1]) * 2

    def read(box: Box, size: tuple[int, int]) -> np.ndarray:
        return rule(crop(tuple(np.multiply(np.add(box, [top, left] * 2), scale).tolist()), size))

    return LargeImage((height, width), read)


def _find_frame(
    path: pathlib.Path, size: tuple[int, int], image: LargeImage
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the image starts in what its mask covers, (top, left), and the (height, width) of that, in its pixels.

    Raises:
        DataError: for a mask of this size (height, width) whose shape differs.
    """
    frames = {"the bounds": ((0, 0), image.size)}
    if image.bounds:
        frames["the whole slide"] = ((image.bounds.top, image.bounds.left), image.slide_size)
    fitting = {name: frame for name, frame in frames.items() if _has_shape(size, frame[1])}
    if not fitting:
        known = "".join(f", or {frame[1]} of {name}" for name, frame in list(frames.items())[1:])
        raise dataset.DataError(
            f"{path} has {size} pixels (height, width), its image {image.size}{known}: the shapes differ."
        )
    exact = [name for name, frame in fitting.items() if frame[1] == size]
    chosen = (exact or list(fitting))[0]
    if len(fitting) > 1 and not exact:
        logger.warning(
            "%s may cover the bounds of its slide or all of it, which have one shape: it is read as covering the"
            " bounds. Save it with the %s pixels (height, width) of one of them.",
            *(path, " or ".join(str(frame[1]) for frame in fitting.values())),
        )
    elif image.bounds:
        logger.info("%s covers %s of its image.", path, chosen)
    return fitting[chosen]


def _has_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    # Sides of a coarse mask are rounded.
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(other)


def _open_values(
    path: pathlib.Path, image: LargeImage, rule: mask_rules.Rule
) -> tuple[Callable[[Box, tuple[int, int]], Image.Image], tuple[int, int]]:
    """A function that crops a mask, without changing its values, and the mask's height and width."""
    slide = slide_windows.open_slide(path)
    # A mask that must be turned as its image is, or whose values OpenSlide changes, is read by Pillow.
    if slide is not None and image.orientation == 1 and slide.properties["openslide.vendor"] == "generic-tiff":
        try:
            # The header only: Image.open refuses large files.
            with TiffImagePlugin.TiffImageFile(path) as header:
                mode = header.mode
                mask_rules.refuse_blurred(rule, header, str(path))
        except SyntaxError as error:
            raise dataset.DataError(f"{path} is no mask ({error}). Save it with one channel of 8 bits.") from error
        if mode in _EXACT_MODES:
            return lambda box, size: slide_windows.crop_slide(
                slide, path, box, size, slide_windows.NEAREST
            ), slide.dimensions[::-1]
    stored = slide_windows.open_picture(path)
    mask_rules.refuse_blurred(rule, stored, str(path))
    upright = image_files.upright_mask(stored, tag=image.orientation, size=image.stored_size)
    return lambda box, size: slide_windows.crop_picture(upright, box, size, slide_windows.NEAREST), (
        upright.height,
        upright.width,
    )
