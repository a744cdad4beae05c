"""Images that cannot be used: which, and why; and the list of them beside a prepared dataset."""

import collections
from collections.abc import Sequence
import csv
import dataclasses
import pathlib

LIST = "skipped.csv"


@dataclasses.dataclass(frozen=True)
class Fault:
    """An image of a release that cannot be used.

    Attributes:
        split: that it belongs to.
        name: of the image.
        reason: naming the file and the mend.
        class_name: of the image, where only its list was read.
    """

    split: str
    name: str
    reason: str
    class_name: str = ""


def listing(faults: Sequence[Fault]) -> str:
    """All reasons, one a line."""
    count = f"{len(faults)} problems" if len(faults) > 1 else "1 problem"
    return f"{count}:\n  " + "\n  ".join(f"{fault.split}: {fault.reason}" for fault in faults)


def summary(faults: Sequence[Fault]) -> str:
    """Their number, in all and in each split."""
    splits = collections.Counter(fault.split for fault in faults)
    count = f"{len(faults)} images" if len(faults) > 1 else "1 image"
    return f"{count} ({', '.join(f'{split} {number}' for split, number in splits.items())})"


def is_utf8(name: str) -> bool:
    """Whether a file's name is text; others cannot be stored."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: object) -> str:
    """A path, or a message with one: bytes that are no text, and line breaks, stand as `\\xe9` and `\\n`."""
    text = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text.replace("\n", "\\n").replace("\r", "\\r")


def write(faults: Sequence[Fault], folder: pathlib.Path) -> None:
    """Writes skipped.csv, with the columns split, image and reason, if there is anything to tell."""
    if faults:
        with (folder / LIST).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "image", "reason"])
            writer.writerows([fault.split, printable(fault.name), printable(fault.reason)] for fault in faults)


def read(folder: pathlib.Path) -> list[Fault]:
    """What `write` wrote."""
    if not (folder / LIST).exists():
        return []
    with (folder / LIST).open(newline="", encoding="utf-8") as file:
        return [Fault(*row) for row in list(csv.reader(file))[1:]]
