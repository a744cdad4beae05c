"""Microns a pixel: what files say of it, and how it compares with the images of the training."""

import pathlib
from typing import BinaryIO

from PIL import TiffImagePlugin

GREATEST_DIFFERENCE = 0.1  # share, between the pixels of an image and of the training
# Microns a pixel that a microscope can have. What programs write without being asked, 72 or 300 dots an inch, is 353 or
# 85; scanners of paper and film have 5 to 42 and are not told apart below 10.
_PLAUSIBLE = (0.01, 10.0)
_X, _Y, _UNIT = 282, 283, 296  # tags of TIFF: pixels per unit, and the unit
_MICRONS = {2: 25400.0, 3: 10000.0}  # in an inch, in a centimetre


def read(file: pathlib.Path | BinaryIO) -> float | None:
    """Microns a pixel as a slide or a TIFF says it; None where it says nothing, or what no microscope has.

    Other formats have a resolution for printers. Slides have to be on a disk.
    """
    sides = (_of_slide(file) if isinstance(file, pathlib.Path) else None) or _of_tiff(file)
    if sides is None or not all(_PLAUSIBLE[0] <= side <= _PLAUSIBLE[1] for side in sides):
        return None
    return sum(sides) / 2 if max(sides) <= (1 + GREATEST_DIFFERENCE) * min(sides) else None


def _of_slide(path: pathlib.Path) -> tuple[float, float] | None:
    try:
        import openslide
    except ImportError:
        return None
    try:
        if openslide.OpenSlide.detect_format(path) is None:
            return None
        with openslide.OpenSlide(path) as slide:
            names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
            return tuple(float(slide.properties[name]) for name in names)
    except (openslide.OpenSlideError, KeyError, ValueError):
        return None


def _of_tiff(file: pathlib.Path | BinaryIO) -> tuple[float, float] | None:
    try:
        with TiffImagePlugin.TiffImageFile(file) as header:
            tags = header.tag_v2
            return tuple(_MICRONS[tags[_UNIT]] / float(tags[tag]) for tag in (_X, _Y))
    except Exception:  # of damaged files, Pillow raises what it stumbles upon; whoever reads their pixels says so
        return None


def rescaling(microns: float | None, of_training: float) -> float:
    """The factor by which an image has to be enlarged to show objects at the size of the training; 1 up to 10 %.

    Args:
        microns: a pixel of the image, None if unknown.
        of_training: microns a pixel of the training images, 0 if unknown.
    """
    if not microns or not of_training:
        return 1.0
    factor = microns / of_training
    return factor if max(factor, 1 / factor) > 1 + GREATEST_DIFFERENCE else 1.0
