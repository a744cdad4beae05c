"""Which files of a folder are images: by their ending or, without one, by their content."""

import collections
from collections.abc import Iterable
import functools
import pathlib

from PIL import Image, features

from minmax_jax.data import unread_formats

# OpenSlide does not list its endings. Found in folders also where it is not installed: the reason is then an error.
_OF_SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".dcm")
_OF_TIFF = (".tf2", ".tf8", ".btf", ".lsm", ".stk", ".qptiff")  # that Pillow does not register
_CODECS = {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000"}  # a build of Pillow may lack
# What desktops and servers leave in folders, in lower case; files whose name begins with a dot, too.
_LITTER = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found")
_MAX_NAMED = 5


@functools.cache
def formats() -> frozenset[str]:
    """The formats that this build of Pillow reads by itself, without another program."""
    Image.preinit()  # first, so that the common formats are asked first whose content a file is
    Image.init()
    missing = {kind for kind, codec in _CODECS.items() if not features.check(codec)}
    # Pillow opens MPO, the JPEG of some phones, as JPEG.
    return frozenset({*Image.OPEN, "MPO"}) - missing - set(unread_formats.RECOGNIZED_ONLY)


@functools.cache
def endings() -> frozenset[str]:
    """The endings of images, in lower case, each with its dot."""
    known = formats()
    registered = {ending for ending, kind in Image.registered_extensions().items() if kind in known}
    return frozenset({*registered, *_OF_SLIDES, *_OF_TIFF})


def is_litter(name: str) -> bool:
    """Whether a desktop or a server left a file or folder of this name: it counts neither as image nor as left out."""
    return name.startswith(".") or name.lower() in _LITTER


def is_image(path: pathlib.Path) -> bool:
    """Whether a file of a folder is an image."""
    return path.suffix.lower() in endings() if path.suffix else _begins_as_image(path)


def _begins_as_image(path: pathlib.Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.format in formats()
    except Exception:  # of Pillow's many readers
        return False


def count(paths: Iterable[pathlib.Path]) -> dict[str, int]:
    """Numbers of files by ending in lower case, "" for none; the most frequent first."""
    return dict(collections.Counter(path.suffix.lower() for path in paths).most_common())


def describe(counts: dict[str, int]) -> str:
    """The numbers in words, as in "3 files with other endings were left out: 2 .txt, 1 .photo"."""
    total = sum(counts.values())
    named = ", ".join(f"{number} {ending or 'without ending'}" for ending, number in list(counts.items())[:_MAX_NAMED])
    others = " and others" if len(counts) > _MAX_NAMED else ""
    verb = "file with another ending was" if total == 1 else "files with other endings were"
    return f"{total} {verb} left out: {named}{others}"
