"""Rows of `predictions.jsonl`, one per image: what is done already, also by processes that share a prediction."""

from collections.abc import Iterable, Mapping, Sequence
import json
import pathlib
from typing import Any

from minmax_jax.base import disk, strict_json
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.outputs import image_outputs

NAME = "predictions.jsonl"
Row = dict[str, Any]


def read(folder: pathlib.Path) -> list[Row]:
    """The rows in a folder; a last line that a kill cut off is dropped."""
    rows = []
    if (folder / NAME).exists():
        for line in (folder / NAME).read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def write(folder: pathlib.Path, rows: Iterable[Row]) -> None:
    """Replaces the rows in a folder."""
    write_text(folder / NAME, "".join(map(to_line, rows)))


def to_line(row: Row) -> str:
    """A row as it is in the file."""
    return strict_json.dumps(row) + "\n"


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces a file: a process that is killed leaves it as it was."""
    with disk.replacing(path) as replacement:
        replacement.write_text(text, encoding="utf-8")


def find_done(rows: Iterable[Row], inputs: Sequence[Input], output: pathlib.Path, options: Options) -> dict[str, Row]:
    """The rows, by stem, of files that are as they were when their row was written, with all outputs there.

    Args:
        rows: some of one image perhaps.
        inputs: the files.
        output: folder of their outputs.
        options: of the prediction.
    """
    items = {item.stem: item for item in inputs}
    done: dict[str, Row] = {}
    for row in rows:
        item = items.get(row["stem"])
        if item is not None and item.stem not in done and _is_done(row, item, output, options):
            done[item.stem] = row
    return done


def _is_done(row: Mapping[str, Any], item: Input, output: pathlib.Path, options: Options) -> bool:
    if row.get("file") != describe_file(item.path):
        return False
    return all((output / path).is_file() for path in image_outputs.files(item.stem, options).values())


def describe_file(path: pathlib.Path) -> dict[str, Any] | None:
    """Identity of a file: path, size and time of modification; None if it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return {"path": str(path.resolve()), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
