#!/bin/bash
# array_record 0.4.1 on the package index: a wheel "for any platform" that holds a library for Linux alone.
#
# Guess: array_record has no wheels for Windows, so `pip download --platform win_amd64` finds none.
# Seen: pip takes array_record-0.4.1-py310-none-any.whl for Windows, an old release, and
# without a word: its only compiled module is an ELF file for x86-64. Newer releases have wheels for Linux and macOS alone, so
# that a resolver that must satisfy "array_record" on Windows ends there, and the first import fails.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
download() { venv/bin/pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --dest "$1" --platform "$2" "$3"; }
download windows win_amd64 array_record
download linux manylinux2014_x86_64 array_record==0.8.1
if download none win_amd64 array_record==0.8.1 2> /dev/null; then echo "0.8.1 has a wheel for Windows now"; exit 1; fi
venv/bin/python - <<'PY'
import pathlib
import zipfile

(wheel,) = pathlib.Path("windows").glob("*.whl")
members = zipfile.ZipFile(wheel)
compiled = [name for name in members.namelist() if name.endswith((".so", ".pyd", ".dll"))]
heads = [members.read(name)[:4] for name in compiled]
print(wheel.name, compiled, heads)
assert wheel.name == "array_record-0.4.1-py310-none-any.whl"
assert compiled == ["array_record/python/array_record_module.so"] and heads == [b"\x7fELF"]
PY
