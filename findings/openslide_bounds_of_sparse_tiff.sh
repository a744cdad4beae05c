#!/bin/bash
# OpenSlide 4.0.1 gives "bounds" to an ordinary tiled TIFF whose last tiles are absent.
#
# Guess: openslide.bounds-x, -y, -width and -height come from vendors' formats alone (MIRAX, Leica); a generic TIFF has none.
# Seen: a TIFF of 128 x 64 pixels whose right tile is stored as absent (offset and byte count 0, as sparse TIFFs do) has
# bounds of 64 x 64. A program that crops to the bounds, as viewers do, returns half of the image; Pillow and tifffile
# return all of it. So a mask that was made with one of them does not fit an image that was read with another.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openslide-bin==4.0.1.2 openslide-python==1.4.7 tifffile==2026.3.3 pillow==13.0.0 numpy==2.4.6
venv/bin/python - <<'PY'
import numpy as np
import openslide
from PIL import Image
import tifffile

tile = np.full((64, 64, 3), 200, np.uint8)
tifffile.imwrite("sparse.tif", iter([tile, None]), shape=(64, 128, 3), dtype="uint8", tile=(64, 64), photometric="rgb")
with tifffile.TiffFile("sparse.tif") as file:
    assert file.pages[0].databytecounts == (12288, 0), file.pages[0].databytecounts
    print("tifffile:", file.pages[0].shape[:2])
print("Pillow:  ", np.asarray(Image.open("sparse.tif")).shape[:2])
slide = openslide.OpenSlide("sparse.tif")
bounds = {name: slide.properties.get(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")}
print("OpenSlide", openslide.__library_version__, slide.properties["openslide.vendor"], slide.dimensions, "bounds", bounds)
assert slide.dimensions == (128, 64)
assert bounds == {"x": "0", "y": "0", "width": "64", "height": "64"}, bounds
PY
