"""Names of images and classes, which may hold anything, in names of files and in captions."""

import hashlib
import os
import pathlib

_MAX_BYTES = 200  # file systems allow 255, some fewer
_MAX_CHARACTERS = 60


def shorten(name: str, *, ending: str) -> str:
    """A path of a file: the name of an image, of which no part is longer than file systems take, and an ending."""
    *folders, last = pathlib.PurePosixPath(name).parts
    return str(pathlib.PurePosixPath(*map(cut, folders), cut(last) + ending))


def cut(part: str) -> str:
    """The name of a file or folder, as long as file systems take; a digest of the whole keeps cut names apart."""
    encoded = os.fsencode(part)
    if len(encoded) <= _MAX_BYTES:
        return part
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: _MAX_BYTES - 9].decode(errors='ignore')}-{digest}"


def printable(name: str) -> str:
    """A name in a caption: one line, and not so long that nothing else fits."""
    name = "".join(character if character.isprintable() else "?" for character in name)
    half = _MAX_CHARACTERS // 2
    return name if len(name) <= _MAX_CHARACTERS else f"{name[:half]}...{name[-half:]}"
