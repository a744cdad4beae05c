"""What an annotation file says of one image, before it is known whether there is such an image."""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib

from minmax_jax.data.importing import regions


@dataclasses.dataclass(frozen=True)
class Entry:
    """The annotation of one image.

    Attributes:
        path: of the file.
        names: of the image: its path or its file's name, the likeliest first; without ending, if that is not known.
        parse: reads its regions.
        categories: names of all categories of the file, by their id.
        skipped: number of shapes without area, by type.
    """

    path: pathlib.Path
    names: tuple[str, ...]
    parse: Callable[[], regions.Drawing]
    categories: Mapping[str, str]
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)


def of_drawing(path: pathlib.Path, names: tuple[str, ...], parse: Callable[[], regions.Drawing]) -> Entry:
    """The entry of a file about one image, which is read for the names of its categories and then dropped.

    Args:
        path: of the annotation file.
        names: of the image, as in `Entry`.
        parse: reads the file.

    Raises:
        DataError: as `parse`.
    """
    drawing = parse()
    names_found = {region.category for region in drawing.regions}
    return Entry(path, names, parse, {name: name for name in names_found}, drawing.skipped)
