"""XML of Pascal VOC: one file an image, with boxes in inclusive pixels that count from 1."""

import pathlib
from xml.etree import ElementTree

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.data.importing import regions

_SIDES = ("ymin", "xmin", "ymax", "xmax")


def is_voc(root: ElementTree.Element) -> bool:
    """Whether XML has the boxes of Pascal VOC, or could: it has no object."""
    objects = root.findall("object")
    return root.tag == "annotation" and all(found.find("bndbox") is not None for found in objects)


def image_name(root: ElementTree.Element) -> str:
    """The name of the image, as the file has it."""
    return root.findtext("filename", "").strip()


def parse(root: ElementTree.Element, path: pathlib.Path) -> regions.Drawing:
    """Its boxes: pixels xmin to xmax, both inclusive and from 1, are those from xmin - 1 up to xmax.

    Raises:
        DataError: for a box that cannot be read.
    """
    found = []
    for number, row in enumerate(root.findall("object"), 1):
        try:
            top, left, bottom, right = (float(row.findtext(f"bndbox/{side}")) for side in _SIDES)
            if not np.isfinite([top, left, bottom, right]).all():
                raise ValueError("it is not four finite numbers")
        except (ValueError, TypeError) as error:
            raise dataset.DataError(
                f"{path}: the box of object {number} cannot be read ({error}). Correct it."
            ) from error
        category = row.findtext("name", "").strip() or "unnamed"
        found.append(regions.Region(category, (top - 1, left - 1, bottom, right)))
    try:
        size = tuple(int(float(root.findtext(f"size/{side}", "0"))) for side in ("height", "width"))
    except (ValueError, OverflowError) as error:
        raise dataset.DataError(f"{path}: its size cannot be read ({error}). Correct it.") from error
    return regions.Drawing(tuple(found), size=size if all(size) else None, only_boxes=True)
