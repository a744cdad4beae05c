#!/bin/bash
# tensorflow-datasets 4.9.10 without TensorFlow and OpenCV decodes some images to other pixels than those that one sees.
#
# Guess: the Image feature with shape (None, None, 3) gives RGB, whatever PNG or JPEG file was stored.
# Seen, by `decode_example_np` with its Pillow backend: of a PNG with a palette not the colours of the palette; a PNG with
# an alpha channel has four channels in spite of the declared three; a JPEG whose EXIF tag says "turned by 90 degrees" is
# not turned. Nothing is raised. Who writes records for others should store plain, upright RGB.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorflow-datasets==4.9.10 importlib_resources==7.1.0 pillow==13.0.0 numpy==2.4.6
venv/bin/python - 2> log <<'PY' || { cat log; exit 1; }
import io

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

feature = tfds.features.Image(shape=(None, None, 3))
rng = np.random.default_rng(0)


def decode(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return feature.decode_example_np(buffer.getvalue())


colors, indices = rng.integers(0, 256, (4, 3), np.uint8), rng.integers(0, 4, (8, 12), np.uint8)
palette = Image.frombytes("P", (12, 8), indices.tobytes())
palette.putpalette(colors.ravel().tolist())
decoded = decode(palette, "PNG")
print("palette:", decoded.shape, "the colours:", np.array_equal(decoded, colors[indices]))
assert decoded.shape == (8, 12, 3) and not np.array_equal(decoded, colors[indices])
decoded = decode(Image.fromarray(rng.integers(0, 256, (8, 12, 4), np.uint8)), "PNG")
print("alpha:", decoded.shape)
assert decoded.shape == (8, 12, 4)
exif = Image.Exif()
exif[274] = 6
decoded = decode(Image.fromarray(colors[indices]), "JPEG", exif=exif)
print("EXIF:", decoded.shape, "upright it is (12, 8, 3)")
assert decoded.shape == (8, 12, 3)
PY
