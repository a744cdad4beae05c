"""A small slide of Leica's format SCN: a BigTIFF whose XML places the scanned area on the whole slide."""

import pathlib

import numpy as np
import tifffile

_IMAGE = """<image name="{name}" uuid="urn:uuid:{name}">
<creationDate>2011-01-01T00:00:00Z</creationDate><device model="model" version="1"/>
<pixels sizeX="{columns}" sizeY="{rows}"><dimension sizeX="{columns}" sizeY="{rows}" r="0" ifd="{ifd}"/></pixels>
<view sizeX="{width}" sizeY="{height}" offsetX="{left}" offsetY="{top}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image>"""


def write(
    path: pathlib.Path, pixels: np.ndarray, *, place: tuple[int, int], size: tuple[int, int], microns: float = 0.5
) -> None:
    """Writes a slide which OpenSlide reads with bounds around the scanned area.

    Args:
        path: of the file.
        pixels: [h, w, 3] uint8, the scanned area.
        place: its top and left on the slide, in pixels.
        size: height and width of the slide, in pixels.
        microns: a pixel; whole nanometres.
    """
    nanometres = round(1000 * microns)
    height, width = (nanometres * side for side in size)
    macro = np.full((size[0] // 4, size[1] // 4, 3), 200, np.uint8)
    of_macro = {"name": "macro", "ifd": 0, "top": 0, "left": 0, "width": width, "height": height}
    of_area = {
        **{"name": "area", "ifd": 1, "top": nanometres * place[0], "left": nanometres * place[1]},
        **{"width": nanometres * pixels.shape[1], "height": nanometres * pixels.shape[0]},
    }
    images = [
        _IMAGE.format(rows=stored.shape[0], columns=stored.shape[1], **described)
        for stored, described in ((macro, of_macro), (pixels, of_area))
    ]
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:1">'
        f'<collection name="slide" uuid="urn:uuid:2" sizeX="{width}" sizeY="{height}"><barcode>1</barcode>'
        f"{''.join(images)}</collection></scn>"
    )
    options = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "software": False}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(macro, description=description, **options)
        file.write(pixels, resolution=(1e4 / microns, 1e4 / microns), resolutionunit="CENTIMETER", **options)
