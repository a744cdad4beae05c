"""JSON without NaN and infinity."""

import json
import math
import pathlib
import re

import numpy as np

from minmax_jax.base import strict_json
from tests import programs


def _refuse(name):
    raise AssertionError(f"{name} is no JSON")


def test_what_is_not_finite_becomes_null_at_any_depth():
    value = {"a": math.nan, "b": [1.5, (math.inf, {"c": -math.inf})], "d": np.float64("nan"), "e": "NaN", "f": True}
    text = strict_json.dumps(value)
    expected = {"a": None, "b": [1.5, [None, {"c": None}]], "d": None, "e": "NaN", "f": True}
    assert json.loads(text, parse_constant=_refuse) == expected
    assert strict_json.dumps({"a": [1]}, indent=1) == '{\n "a": [\n  1\n ]\n}'


def test_no_file_is_written_by_another_function():
    for folder in ("minmax_jax", "experiments", "benchmarks"):
        for path in (programs.ROOT / folder).rglob("*.py"):
            if path.name != "strict_json.py":
                found = re.findall(r"(?<!strict_)json\.dumps?\(", path.read_text(encoding="utf-8"))
                assert not found, f"{path}: use strict_json.dumps"


def read_all(folder: pathlib.Path) -> int:
    """Reads all JSON in a folder as a strict reader does, and returns the number of the files."""
    count = 0
    for path in folder.rglob("*.json*"):
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=_refuse)
        count += 1
    return count
