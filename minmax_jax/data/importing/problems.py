"""Images that cannot be used, with reasons, and the list of them next to a prepared dataset."""

import collections
from collections.abc import Sequence
import dataclasses
import pathlib

from minmax_jax.base import tables

LIST = "skipped.csv"
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Problem:
    """An image of a raw dataset that cannot be used.

    Attributes:
        split: of the image.
        name: of the image.
        reason: names the file and what to do.
        class_name: of the image, if only its list was read.
    """

    split: str
    name: str
    reason: str
    class_name: str = ""


def listing(problems: Sequence[Problem]) -> str:
    """The reasons, one per line, of many the first."""
    count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
    lines = [f"{problem.split}: {problem.reason}" for problem in problems[:_MAX_LISTED]]
    if len(problems) > _MAX_LISTED:
        lines.append(f"... and {len(problems) - _MAX_LISTED} more.")
    return f"{count}:\n  " + "\n  ".join(lines)


def summary(problems: Sequence[Problem]) -> str:
    """Their number, in total and per split."""
    splits = collections.Counter(problem.split for problem in problems)
    count = f"{len(problems)} images" if len(problems) > 1 else "1 image"
    return f"{count} ({', '.join(f'{split} {number}' for split, number in splits.items())})"


def is_utf8(name: str) -> bool:
    """Whether a file name is valid UTF-8; others cannot be stored."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: object) -> str:
    """A path, or a message with one: invalid UTF-8 and line breaks are escaped as `\\xe9` and `\\n`."""
    text = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text.replace("\n", "\\n").replace("\r", "\\r")


def write(problems: Sequence[Problem], folder: pathlib.Path) -> None:
    """Writes skipped.csv, with the columns split, image and reason, if there are any problems."""
    if problems:
        rows = ([problem.split, printable(problem.name), printable(problem.reason)] for problem in problems)
        tables.write(folder / LIST, ["split", "image", "reason"], rows)


def read(folder: pathlib.Path) -> list[Problem]:
    """The problems that `write` wrote."""
    if not (folder / LIST).exists():
        return []
    return [Problem(*row) for row in tables.read(folder / LIST)[1:]]
