"""The index of prepared records: a start reads no record, and a missing, stale or damaged index is built anew."""

import json
import pickle

import numpy as np
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.data import load, record_index
from minmax_jax.data.importing import records
from tests import own_layout


@pytest.fixture
def prepared(tmp_path):
    root = own_layout.write(tmp_path / "source")
    return records.prepare("pets", lambda scratch: own_layout.read_folders(root), tmp_path / "out").folder


@pytest.fixture
def reads(monkeypatch):
    """Numbers of the records that are read."""
    numbers, read = [], load._read
    monkeypatch.setattr(
        load, "_read", lambda folder, source, number: numbers.append(number) or read(folder, source, number)
    )
    return numbers


def _load(folder):
    return load.read_splits(folder.parents[1], "pets")


def _describe(splits):
    return {name: (part.names, part.labels.tolist(), part.sizes.tolist()) for name, part in splits.items()}


def test_a_prepared_dataset_has_an_index_and_starts_without_reading_records(prepared, reads):
    splits = _load(prepared)
    assert not reads and (prepared / record_index.FILE).exists()
    assert splits["train"].read_image(0).shape[:2] == tuple(splits["train"].sizes[0]) and len(reads) == 1


def test_an_older_preparation_gets_its_index_on_first_use(prepared, reads):
    expected = _describe(_load(prepared))
    (prepared / record_index.FILE).unlink()
    assert _describe(_load(prepared)) == expected and reads
    reads.clear()
    assert _describe(_load(prepared)) == expected and not reads


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: "",
        lambda content: "[]",
        lambda content: json.dumps(json.loads(content) | {"format": 0}),
        lambda content: json.dumps(json.loads(content) | {"files": {}}),
        lambda content: json.dumps(json.loads(content) | {"index": {}}),
        lambda content: json.dumps(json.loads(content) | {"index": None}),
        lambda content: content.replace('"labels": [0', '"labels": [1'),
        lambda content: content.replace('"labels": [0, ', '"labels": ['),
        lambda content: "[" * 100_000,
    ],
)
def test_a_damaged_or_stale_index_is_built_anew(prepared, reads, spoil):
    expected, path = _describe(_load(prepared)), prepared / record_index.FILE
    path.write_text(spoil(path.read_text()))
    assert _describe(_load(prepared)) == expected and reads
    assert [file.name for file in prepared.iterdir() if file.name.startswith(".")] == []


def test_records_that_were_cut_short_since_are_noticed(prepared):
    (path,) = prepared.glob("*train.array_record*")
    path.write_bytes(path.read_bytes()[:-70_000])
    with pytest.raises(UserError, match="2.0.0 is damaged"):
        _load(prepared)


def test_a_folder_that_cannot_be_written_works_without_an_index(prepared, monkeypatch, caplog):
    expected = _describe(_load(prepared))
    (prepared / record_index.FILE).unlink()

    def refuse(**options):
        raise PermissionError(13, "Permission denied", str(options["dir"]))

    monkeypatch.setattr(record_index.tempfile, "mkstemp", refuse)
    assert _describe(_load(prepared)) == expected
    assert "No index was written" in caplog.text and not (prepared / record_index.FILE).exists()


def test_readers_are_small_to_pickle_and_open_the_records_themselves(prepared):
    split = _load(prepared)["train"]
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.read_image(1), split.read_image(1))
    assert len(pickle.dumps(split.read_image)) < 2000
