"""The size of a pixel in OME-XML, read as far as needed and without expanding entities."""

from xml.parsers import expat

from minmax_jax.data import length_units

_MAX_CHARACTERS = 1 << 26


class _Found(Exception):
    """Ends the parser."""


def read_sides(text: str, *, file_name: str = "") -> tuple[float, float, bool] | None:
    """Width and height of a pixel in microns, and whether their unit is the micron or a smaller one.

    Of several images it is that whose TiffData has the file's first page, which readers of pixels show. A size that has
    no unit is in microns, as the schema says.

    Args:
        text: description of a TIFF page.
        file_name: of the TIFF file; OME-XML may describe several files.

    Returns:
        None for other text, for an image without a size, and for XML with a DTD, whose entities could grow.
    """
    if len(text) > _MAX_CHARACTERS or not text.lstrip().startswith("<"):
        return None
    reader = _Reader(file_name)
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        parser.Parse(text, True)
    except _Found:
        pass
    except expat.ExpatError:
        return None
    return _sides(reader.pixels())


class _Reader:
    """Handlers of the parser: attributes of the Pixels element that describes the first page of a file."""

    def __init__(self, file_name: str):
        self._file_name, self._depth = file_name, 0
        self._current: dict[str, str] = {}  # of the Pixels element that is open
        self._first_page = self._first = self._exact = None
        self._is_first_page, self._named = False, ""  # of the TiffData element that is open

    def pixels(self) -> dict[str, str]:
        """Attributes by name; {} where there is no image."""
        return next((pixels for pixels in (self._exact, self._first_page, self._first) if pixels is not None), {})

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name, self._depth = name.rpartition(" ")[2], self._depth + 1
        if self._depth == 1 and name != "OME":
            raise _Found
        if name == "Pixels":
            self._current = attributes
            self._first = attributes if self._first is None else self._first
        elif name == "TiffData":
            self._is_first_page, self._named = attributes.get("IFD", "0").strip() == "0", ""
        elif name == "UUID" and self._is_first_page:
            self._named = attributes.get("FileName", "")

    def end(self, name: str) -> None:
        self._depth -= 1
        if name.rpartition(" ")[2] != "TiffData" or not self._is_first_page:
            return
        self._is_first_page = False
        self._first_page = self._current if self._first_page is None else self._first_page
        # Names are those from before a file was renamed; then the first image with that page counts.
        if self._named in ("", self._file_name):
            self._exact = self._current
            raise _Found

    def refuse(self, *arguments) -> None:
        del arguments
        self._exact, self._first_page, self._first = None, None, None
        raise _Found


def _sides(pixels: dict[str, str]) -> tuple[float, float, bool] | None:
    sides = []
    for axis in "XY":
        try:
            value = float(pixels[f"PhysicalSize{axis}"])
        except (KeyError, ValueError):
            continue
        unit = length_units.in_microns(pixels.get(f"PhysicalSize{axis}Unit", "μm"))
        if unit:
            sides.append((value * unit, unit <= 1))
    if not sides:
        return None
    (width, is_small), (height, is_small_too) = sides[0], sides[-1]
    return width, height, is_small and is_small_too
