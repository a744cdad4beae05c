"""CSV files that Excel shows as they are meant, and that programs read back exactly.

Excel takes UTF-8 for another encoding without a byte order mark, runs cells that begin with = as formulas, and rewrites
texts such as 00123, 1e5 or 2024-01-02 as numbers and dates. Such texts get an apostrophe in front, which is no part of
the text; `read` takes it away.
"""

from collections.abc import Iterable, Sequence
import csv
import math
import pathlib
import re
from typing import Any

import numpy as np

from minmax_jax.base import disk

ENCODING = "utf-8-sig"
_MONTH = (
    r"(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?"
    r"|dec(ember)?)"
)
_CHANGED = re.compile(
    r"""['=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20].*       # formulas, also in full width, and our own mark
    | 0\d+ (\.\d*)?                    # zeros in front
    | \d{12,} (\.\d*)?                 # shown as a power of ten
    | \d*\.\d*0 | \.\d+ | \d+\.        # 1.50 is shown as 1.5, .5 as 0.5
    | (\d+\.?\d*|\.\d+) e [+-]?\d+     # powers of ten
    | \d{1,4} [-/.] \d{1,2} ([-/.] \d{1,4})?            # dates
    | \d{1,2} : \d{1,2} (: \d{1,2})? (\.\d*)?           # times
    | MONTH [-/.,\ ]? \ ? \d{1,4} ([-/.,\ ] \ ? \d{1,4})?  # SEPT2, May 2024
    | \d{1,4} [-/.\ ]? MONTH ([-/.,\ ]? \ ? \d{1,4})?      # 1-Mar
    | true | false                   # shown in capitals
    """.replace("MONTH", _MONTH),
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_MARK = "'"


def write(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table, complete or not at all.

    Args:
        path: of the file.
        header: names of the columns.
        rows: cells: texts, numbers, which are written without exponent, and None for no value. What is not UTF-8 in a
            text is escaped as in `\\udce9`.
    """
    with (
        disk.replacing(path) as replacement,
        replacement.open("w", newline="", encoding=ENCODING, errors="backslashreplace") as file,
    ):
        table = csv.writer(file)
        table.writerows([cell(value) for value in row] for row in (header, *rows))


def read(path: pathlib.Path) -> list[list[str]]:
    """The rows of a table that `write` wrote, the header first, with texts as they were."""
    with path.open(newline="", encoding=ENCODING) as file:
        return [[value.removeprefix(_MARK) for value in row] for row in csv.reader(file)]


def cell(value: Any) -> str:
    """The text of a cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        is_changed = _CHANGED.fullmatch(value) or _CHANGED.fullmatch(value.strip())
        return _MARK + value if is_changed else value
    if isinstance(value, float | np.floating):
        return np.format_float_positional(value, trim="0")
    return str(value)
