#!/bin/bash
# tifffile 2026.3.3: two OME-TIFF files of the same array differ, and each names the machine that wrote it.
#
# Guess: the same pixels and the same metadata give the same bytes, so that outputs can be compared by their digests.
# Seen: the OME-XML gets a UUID of version 1 unless metadata={"UUID": ...} is given: it holds the time and, by default, the
# network address of the machine. With a UUID of one's own the files are equal.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tifffile==2026.3.3 numpy==2.4.6
venv/bin/python -W error - <<'PY'
import pathlib
import re
import uuid

import numpy as np
import tifffile

pixels = np.zeros((16, 16), np.uint8)


def write(name, **metadata):
    tifffile.imwrite(name, pixels, ome=True, metadata=metadata)
    return pathlib.Path(name).read_bytes()


first, second = write("a.ome.tif"), write("b.ome.tif")
found = {uuid.UUID(text.decode()) for content in (first, second) for text in re.findall(rb'UUID="urn:uuid:([^"]+)"', content)}
print("UUIDs of versions", sorted(one.version for one in found), "of one machine:", len({one.node for one in found}) == 1)
print("equal by default:", first == second)
given = str(uuid.uuid5(uuid.NAMESPACE_URL, "example"))
first, second = write("a.ome.tif", UUID=given), write("b.ome.tif", UUID=given)
print("equal with a UUID of one's own:", first == second)
assert first == second and {one.version for one in found} == {1} and len(found) == 2
PY
