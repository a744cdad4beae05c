"""CSV files for Excel: texts stay texts, numbers are plain, and all of it is read back."""

import csv

import numpy as np
import pytest

from minmax_jax.base import tables
from minmax_jax.data.importing import problems

# What Excel would show as something else: formulas, numbers without their zeros, powers of ten, dates and times.
_CHANGED = ["=1+1", "+1", "-a", "@x", "\tq", "\r", "00123", " 007", "1e5", "1.5E-3", "123456789012", "1.50", ".5", "1."]
_CHANGED += ["2024-01-02", "1-2", "3/4", "1.5", "1:30", "12:30:59", "SEPT2", "MARCH1", "1-Mar", "may 2024", "Dec-1-24"]
_CHANGED += ["true", "False", "'quoted", "\uff1d1"]
_KEPT = ["", "0", "8", "123", "abc", "a=b", "p1-2", "Mary", "may", "mayfly", "decem 3 x", "1_2", "img 00123", "1e5.png"]
_KEPT += ["a,b", 'say "a"', "Größe", "two\nlines", "/x/00123.png", "1-2-3-4", "truefalse"]


@pytest.mark.parametrize("text", _CHANGED)
def test_texts_that_excel_changes_get_an_apostrophe(text):
    assert tables.cell(text) == f"'{text}"


@pytest.mark.parametrize("text", _KEPT)
def test_others_stay_as_they_are(text):
    assert tables.cell(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "0.00001"),
        (9.9e-6, "0.0000099"),
        (-0.25, "-0.25"),
        (1e20, "100000000000000000000.0"),
        (1.0, "1.0"),
        (np.float32(0.1), "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (float("nan"), ""),
        (None, ""),
        (12, "12"),
    ],
)
def test_numbers_are_plain_decimals(value, text):
    assert tables.cell(value) == text


def test_tables_are_read_back(tmp_path):
    rows = [[text, text] for text in _CHANGED + _KEPT]
    tables.write(tmp_path / "a.csv", ["name", "=class"], rows)
    assert tables.read(tmp_path / "a.csv") == [["name", "=class"], *rows]
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbfname,'=class\r\n")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8-sig") as file:
        assert len(list(csv.reader(file))) == len(rows) + 1


def test_the_list_of_skipped_images_is_such_a_table(tmp_path):
    listed = [problems.Problem("train", "=1.png", "größer"), problems.Problem("test", "1-2", "'odd'")]
    problems.write(listed, tmp_path)
    assert problems.read(tmp_path) == listed
    assert (tmp_path / problems.LIST).read_bytes().startswith(b"\xef\xbb\xbfsplit,image,reason\r\ntrain,'=1.png,")
    # One that is older than the mark.
    (tmp_path / problems.LIST).write_text("split,image,reason\ntrain,a.png,broken\n", encoding="utf-8")
    assert problems.read(tmp_path) == [problems.Problem("train", "a.png", "broken")]


def test_a_table_that_fails_leaves_the_one_that_is_there(tmp_path):
    tables.write(tmp_path / "a.csv", ["x"], [["old"]])
    with pytest.raises(ZeroDivisionError):
        tables.write(tmp_path / "a.csv", ["x"], ([1 // number] for number in (1, 0)))
    assert tables.read(tmp_path / "a.csv") == [["x"], ["old"]]
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
