"""The record of a training run, `metrics.jsonl`: a line of JSON per measurement."""

import json
import pathlib


def _none(name: str) -> None:
    """For the NaN and Infinity that earlier versions wrote."""
    del name


def read(path: pathlib.Path) -> list[dict]:
    """All whole lines of a record; lines cut short by a kill are left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line, parse_constant=_none))
        except json.JSONDecodeError:
            continue
    return records
