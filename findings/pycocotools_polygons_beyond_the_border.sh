#!/bin/bash
# pycocotools 2.0.11: a polygon that reaches over the left or upper border is drawn otherwise than the same polygon moved.
#
# Guess: drawing a polygon in a window (coordinates minus the window's corner) gives the window of the drawn mask, so that
# annotations can be drawn tile by tile. Moved by whole pixels inside of the frame, polygons do not change.
# Seen: of 200 random polygons that are cut by the window's left and upper border, 79 differ from the window of the whole
# mask, by up to 5 pixels. Masks of tiles do not fit together at their seams.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pycocotools==2.0.11 numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
import numpy as np
from pycocotools import mask


def draw(polygon, height, width):
    return mask.decode(mask.merge(mask.frPyObjects([polygon.ravel().tolist()], height, width)))


rng = np.random.default_rng(0)
cut, moved, greatest = 0, 0, 0
for _ in range(200):
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, 7)), rng.uniform(4, 14, 7)
    polygon = np.stack([20 + radii * np.cos(angles), 20 + radii * np.sin(angles)], axis=1)
    whole = draw(polygon, 40, 40)
    different = int((draw(polygon - 12, 28, 28) != whole[12:, 12:]).sum())
    cut, greatest = cut + (different > 0), max(greatest, different)
    moved += bool((draw(polygon + [5, 3], 43, 45)[3:, 5:] != whole).any())
print(f"cut by the window: {cut} of 200 differ, by up to {greatest} pixels; moved inside of the frame: {moved} differ")
assert (cut, greatest, moved) == (79, 5, 0)
PY
