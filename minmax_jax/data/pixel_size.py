"""The size of an image's pixels: what a file says of it, and how it compares with the images of the training."""

from collections.abc import Sequence
import dataclasses
import io
import math
import pathlib
import re
from typing import BinaryIO

from minmax_jax.data import length_units, ome_xml, tiff_files

MAX_DIFFERENCE = 0.1  # share, between the pixels of two images that count as of one size
# Microns. Sizes in inches, centimetres or millimetres are mostly those of printers and screens: 72 or 300 dots an inch
# are 353 and 85 microns; scanners of paper and film have 5 to 42, which below 10 cannot be distinguished from those of
# microscopes. A size in microns or less is that of a microscope, also of electrons or of small magnification.
_PLAUSIBLE, _PLAUSIBLE_IN_MICRONS = (0.01, 10.0), (1e-4, 100.0)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
_DESCRIPTION, _X, _Y, _UNIT = 270, 282, 283, 296  # tags of TIFF
# Microns in the unit of a TIFF's resolution: inch, centimetre; 4 and 5, millimetre and micron, are extensions.
_TIFF_UNITS = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}
_INCH = 2  # TIFF 6.0: the unit where the tag is missing
_DOTS_PER_INCH = (72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 220, 240, 254, 300, 350, 360, 400, 600, 720, 800, 1200)
_UNITS_WITHOUT_SIZE = {1e3: "millimetre", 1e4: "centimetre", 25400.0: "inch", 1e6: "metre"}
NOT_SQUARE = "the pixels are not square"


@dataclasses.dataclass(frozen=True)
class PixelSize:
    """What a file says of the size of its pixels.

    Attributes:
        sides: width and height of a pixel in microns; None where the file says nothing.
        in_microns: whether the file gives them in microns or a smaller unit.
    """

    sides: tuple[float, float] | None = None
    in_microns: bool = False

    @property
    def microns(self) -> float | None:
        """Side of a pixel, the mean of width and height; None where it is unknown or ignored."""
        return None if self.sides is None or self.ignored else sum(self.sides) / 2

    @property
    def ignored(self) -> str:
        """Why the sides are not used, "" where they are or where there are none."""
        if self.sides is None:
            return ""
        minimum, maximum = _PLAUSIBLE_IN_MICRONS if self.in_microns else _PLAUSIBLE
        for side in self.sides:
            if not minimum <= side <= maximum:
                return _explain(side)
        return NOT_SQUARE if not is_same(*self.sides) else ""


UNKNOWN = PixelSize()


def read(file: pathlib.Path | BinaryIO) -> PixelSize:
    """The pixel size in a slide, an OME-TIFF, a TIFF of ImageJ or any other TIFF, in this order.

    Other formats, such as PNG and JPEG, have a resolution for printers, which is not read. Slides have to be on a disk.
    Nothing is raised for files that are damaged or missing: whoever reads their pixels says so.
    """
    if isinstance(file, pathlib.Path):
        if sides := _of_slide(file):
            return PixelSize(sides, in_microns=True)
        try:
            with file.open("rb") as opened:
                return _of_tiff(opened, file.name)
        except OSError:
            return UNKNOWN
    return _of_tiff(file, "")


def is_same(first: float, second: float) -> bool:
    """Whether two sizes differ by at most 10 % of the smaller one."""
    return max(first, second) <= (1 + MAX_DIFFERENCE) * min(first, second)


def rescaling(microns: float | None, of_training: float) -> float:
    """The factor by which an image has to be enlarged to show objects at the size of the training; 1 up to 10 %.

    Args:
        microns: a pixel of the image, None if unknown.
        of_training: microns a pixel of the training images, 0 if unknown.
    """
    if not microns or not of_training:
        return 1.0
    factor = microns / of_training
    return factor if max(factor, 1 / factor) > 1 + MAX_DIFFERENCE else 1.0


def format_sides(sides: Sequence[float]) -> str:
    """Width and height in microns for people, a single number of a square."""
    width, height = (f"{side:.4g}" for side in sides)
    return f"{width} microns" if width == height else f"{width} x {height} microns"


def describe_ignored(ignored: Sequence[tuple[str, Sequence[float], str]], total: int) -> list[str]:
    """A line for each reason why sizes are not used, however many files there are.

    Args:
        ignored: name of a file, its `PixelSize.sides` and `PixelSize.ignored`.
        total: number of images.
    """
    lines = []
    for reason in dict.fromkeys(reason for *_, reason in ignored):
        names = [(name, sides) for name, sides, other in ignored if other == reason]
        name, sides = names[0]
        such = "" if len(names) == 1 else "such as "
        lines.append(
            f"The pixel size of {len(names)} of {total} images is ignored, {such}{format_sides(sides)} in {name}:"
            f" {reason}. Give the right one by microns_per_pixel."
        )
    return lines


def _explain(side: float) -> str:
    """The probable cause of a size that no microscope has."""
    for microns, unit in _UNITS_WITHOUT_SIZE.items():
        if math.isclose(side, microns, rel_tol=1e-3):
            return f"1 pixel per {unit} is what libvips and other programs write where they know no size"
    for dots in _DOTS_PER_INCH:
        if math.isclose(side, 25400 / dots, rel_tol=2e-3):
            return f"{dots} dots an inch is a resolution of screens, scanners and printers"
    return f"no microscope has pixels as {'small' if side < _PLAUSIBLE[0] else 'large'} as that"


def _of_slide(path: pathlib.Path) -> tuple[float, float] | None:
    """Of the formats of scanners; what OpenSlide says of any other TIFF is in its tags."""
    try:
        import openslide
    except ImportError:
        return None
    try:
        if openslide.OpenSlide.detect_format(path) in (None, "generic-tiff"):
            return None
        with openslide.OpenSlide(path) as slide:
            names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
            return _valid(*(float(slide.properties[name]) for name in names))
    except (openslide.OpenSlideError, KeyError, ValueError):
        return None


def _of_tiff(file: BinaryIO, name: str) -> PixelSize:
    start = file.read(4)
    file.seek(0)
    if start not in _TIFF:
        return UNKNOWN
    import tifffile  # Here, because it takes a third of a second to import.

    try:
        with tiff_files.without_log(), tifffile.TiffFile(file) as tiff:
            tags = tiff.pages[0].tags
            description = tags.valueof(_DESCRIPTION) or ""
            resolution = [_number(tags.valueof(tag)) for tag in (_X, _Y)]
            unit = int(tags.valueof(_UNIT, default=_INCH))
    except Exception:  # of damaged files, tifffile raises what it stumbles upon
        return UNKNOWN
    description = description if isinstance(description, str) else ""
    return (
        _of_ome(description, name)
        or _of_imagej(description, resolution)
        or _of_aperio(description)
        or _of_resolution(resolution, [_TIFF_UNITS.get(unit)] * 2)
        or UNKNOWN
    )


def _number(value: object) -> float:
    """A tag's number, of a fraction its value; 0 where there is none."""
    try:
        return value[0] / value[1] if isinstance(value, tuple) else float(value)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return 0.0


def _of_ome(description: str, name: str) -> PixelSize | None:
    if (found := ome_xml.read_sides(description, file_name=name)) is None:
        return None
    sides = _valid(*found[:2])
    return sides and PixelSize(sides, in_microns=found[2])


def _of_imagej(description: str, resolution: Sequence[float]) -> PixelSize | None:
    """ImageJ has pixels per unit in the tags, and the name of the unit in the description."""
    if not description.startswith(("ImageJ=", "SCIFIO=")):
        return None
    lines = dict(line.partition("=")[::2] for line in io.StringIO(description))
    x_unit = lines.get("unit", "")
    units = [length_units.in_microns(unit) for unit in (x_unit, lines.get("yunit", x_unit))]
    return _of_resolution(resolution, units)


def _of_aperio(description: str) -> PixelSize | None:
    """Slides of Aperio where there is no OpenSlide."""
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", description) if description.startswith("Aperio") else None
    side = _number(found[1]) if found else 0.0
    sides = _valid(side, side)
    return sides and PixelSize(sides, in_microns=True)


def _of_resolution(resolution: Sequence[float], units: Sequence[float | None]) -> PixelSize | None:
    """Sides from pixels per unit, and microns in the unit, across and down."""
    if not all(resolution) or not all(units):
        return None
    sides = _valid(*(unit / pixels for unit, pixels in zip(units, resolution)))
    return sides and PixelSize(sides, in_microns=max(units) <= 1)


def _valid(*sides: float) -> tuple[float, ...] | None:
    return sides if all(math.isfinite(side) and side > 0 for side in sides) else None
