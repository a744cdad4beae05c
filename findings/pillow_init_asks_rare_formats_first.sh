#!/bin/bash
# Pillow 13.0.0: after Image.init(), or registered_extensions(), opening a JPEG takes about twice as long.
#
# Guess: the order in which formats are asked whether a file is theirs does not depend on what a program has called.
# Seen: usually the five common ones are loaded, and asked, first. If a program lists the formats before it opens its first
# image, all are loaded by the names of their modules: 24 others are asked before JPEG, among them some that parse what
# they are given. Image.preinit() before restores the order.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0
cat > open.py <<'PY'
import io
import sys
import timeit

from PIL import Image

if sys.argv[1] == "preinit":
    Image.preinit()
Image.registered_extensions()
file = io.BytesIO()
Image.new("RGB", (64, 64)).save(file, "JPEG")
seconds = min(timeit.repeat(lambda: Image.open(io.BytesIO(file.getvalue())), number=1000, repeat=7)) / 1000
print(Image.ID.index("JPEG"), f"{1e6 * seconds:.1f}")
PY
venv/bin/python open.py as_it_is > listed
venv/bin/python open.py preinit > common
echo "formats before JPEG, and microseconds to open one: $(cat listed); with preinit: $(cat common)"
read -r before slow < listed
read -r others fast < common
test "$before" = 24 && test "$others" = 3
venv/bin/python -c "assert $slow > 1.3 * $fast, ($slow, $fast)"
