"""An index next to prepared records: names, labels, sizes and patients. A run starts without reading all images.

It contains the names and sizes of all files, and a checksum of itself. Where these differ, or where there is no index,
it is built anew.
"""

import json
import logging
import os
import pathlib
import tempfile
from typing import Any
import zlib

from minmax_jax.base import strict_json

logger = logging.getLogger(__name__)
FILE = "index.json"
_FORMAT = 3


def read(folder: pathlib.Path, build_fn) -> dict[str, Any]:
    """The index of a folder of records, written if it is missing or stale.

    Args:
        folder: with the records.
        build_fn: folder -> index as JSON values; reads all records.
    """
    files = _sizes(folder)
    try:
        content = json.loads((folder / FILE).read_text())
        expected = {"format": _FORMAT, "files": files, "checksum": _checksum(content["index"])}
        if {key: content[key] for key in expected} == expected:
            return content["index"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # missing, cut short or of another format: all are built anew
    index = build_fn(folder)
    write(folder, index)
    return index


def write(folder: pathlib.Path, index: dict[str, Any]) -> None:
    """Writes the index of a folder of records.

    Args:
        folder: with the records, complete.
        index: as JSON values, see `read`.
    """
    content = {"format": _FORMAT, "files": _sizes(folder), "checksum": _checksum(index), "index": index}
    _replace(folder, content)


def _checksum(index: dict[str, Any]) -> int:
    return zlib.crc32(strict_json.dumps(index).encode())


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    names = (path.name for path in folder.iterdir() if not path.name.startswith("."))
    return {name: (folder / name).stat().st_size for name in sorted(names) if name != FILE}


def _replace(folder: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes under a name of its own and renames: several processes may do so at once."""
    try:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{FILE}-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(strict_json.dumps(content))
            pathlib.Path(name).chmod(0o644)
            pathlib.Path(name).replace(folder / FILE)
        except BaseException:
            pathlib.Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        logger.warning("No index was written to %s (%s): each start reads all records.", folder, error)
