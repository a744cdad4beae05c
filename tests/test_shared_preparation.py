"""Preparation in chunks: by several processes, after a kill, and by threads, always the same bytes."""

import dataclasses
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from minmax_jax.base import lock, shares
from minmax_jax.base.errors import UserError
from minmax_jax.data import dataset, load
from minmax_jax.data.importing import (
    chunks,
    csv_files,
    glas,
    mask_rules,
    problems,
    raw_dataset,
    record_files,
    records,
    summary,
)
from tests import encoded, flowers_layout, glas_layout, own_layout, programs

_JOB = "flags"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """12 images, of which one is damaged and one is in two splits."""
    root = own_layout.write(tmp_path_factory.mktemp("shared"))
    own_layout.put("images/train/dog/1.png", own_layout.half("PNG"))(root)
    own_layout.copy("images/test/cat/0.png", "images/train/cat/2.png")(root)
    return root


def _read(root, *, per_chunk=2):
    return dataclasses.replace(own_layout.read_folders(root), images_per_chunk=per_chunk)


def _prepare(root, out, share=shares.ALL, *, read=_read, job=_JOB, skip_bad=True, **options):
    return records.prepare("pets", lambda scratch: read(root), out, skip_bad=skip_bad, job=job, share=share, **options)


def _counting(root, names, **options):
    """The raw dataset of `_read`, which adds the name of each image that is read to a list."""

    def read_records(item, raw):
        names.append(item.name)
        yield raw_dataset.read_record(item, raw)

    return dataclasses.replace(_read(root, **options), read_records=read_records)


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    _prepare(root, out)
    return _files(out)


@pytest.mark.parametrize("count", [2, 4, 20])
def test_shares_in_any_order_write_what_one_process_writes(root, alone, tmp_path, count):
    done = [_prepare(root, tmp_path, shares.Share(index, count)) for index in reversed(range(count))]
    assert [prepared is None for prepared in done] == [True] * (count - 1) + [False]
    assert _files(tmp_path) == alone
    assert sorted(pathlib.Path(name).name for name in alone if "array_record" not in name) == [
        "dataset_info.json",
        "features.json",
        "index.json",
        "label.labels.txt",
        "skipped.csv",
    ]
    assert b"train,train/dog/1.png," in alone["pets/2.0.0/skipped.csv"]
    assert b"train,train/cat/2.png," in alone["pets/2.0.0/skipped.csv"]
    assert _prepare(root, tmp_path, shares.Share(0, count)).masks is None  # it is there
    assert _files(tmp_path) == alone


@pytest.mark.parametrize("read", [_read, own_layout.read_tiles])
def test_threads_write_what_one_thread_writes(root, tmp_path, read):
    for num_threads in (1, 3):
        _prepare(root, tmp_path / str(num_threads), read=read, num_threads=num_threads)
    assert _files(tmp_path / "1") == _files(tmp_path / "3")


def test_bad_images_are_listed_as_by_one_process(root, tmp_path):
    with pytest.raises(UserError) as expected:
        _prepare(root, tmp_path / "one", skip_bad=False)
    assert "2 problems" in str(expected.value) and "same image as" in str(expected.value)
    assert _prepare(root, tmp_path / "two", shares.Share(0, 2), skip_bad=False) is None
    with pytest.raises(UserError) as caught:
        _prepare(root, tmp_path / "two", shares.Share(1, 2), skip_bad=False)
    assert str(caught.value) == str(expected.value)
    assert not _files(tmp_path)


def test_only_what_is_missing_is_read_again(root, alone, tmp_path):
    assert _prepare(root, tmp_path, shares.Share(1, 2)) is None
    names = []
    _prepare(root, tmp_path, read=lambda root: _counting(root, names))  # another number of processes
    every = [item.name for item in own_layout.read_folders(root)]
    assert names == [*every[0:2], *every[4:6], *every[8:10]]  # in chunks of two, of which the others were made
    assert _files(tmp_path) == alone


@pytest.mark.parametrize("change", ["flags", "file"])
def test_what_is_read_with_other_flags_or_of_another_file_is_read_again(root, tmp_path, change):
    copy = shutil.copytree(root, tmp_path / "copy")
    assert _prepare(copy, tmp_path / "out", shares.Share(0, 2)) is None
    names, job = [], _JOB
    if change == "flags":
        job = "others"
    else:
        os.utime(copy / "images" / "train" / "cat" / "0.png", ns=(1, 1))
    _prepare(copy, tmp_path / "out", read=lambda root: _counting(root, names), job=job)
    assert "train/cat/0.png" in names
    assert len(names) == (12 if change == "flags" else 8)


def test_a_chunk_that_was_cut_off_is_read_again(root, alone, tmp_path):
    assert _prepare(root, tmp_path, shares.Share(0, 2)) is None
    first, *_ = sorted((tmp_path / "pets").rglob("*.records"))
    first.write_bytes(first.read_bytes()[:-1])
    assert _prepare(root, tmp_path, shares.Share(1, 2)) is None  # of another process: it must read it again
    _prepare(root, tmp_path, shares.Share(0, 2))
    assert _files(tmp_path) == alone


def test_a_run_that_was_stopped_goes_on(root, alone, tmp_path, monkeypatch):
    serialized = []

    def create(class_names):
        def serialize(record):
            serialized.append(record["name"])
            if len(serialized) == 6:
                raise KeyboardInterrupt
            return complete(record)

        complete = original(class_names)
        return serialize

    original = record_files.create_serializer
    with monkeypatch.context() as patch:
        patch.setattr(record_files, "create_serializer", create)
        with pytest.raises(KeyboardInterrupt):
            _prepare(root, tmp_path)
    assert len(list((tmp_path / "pets" / "incomplete.chunks").glob("*.json"))) >= 1
    names = []
    _prepare(root, tmp_path, read=lambda root: _counting(root, names))
    assert 0 < len(names) < 12 and _files(tmp_path) == alone


def test_a_join_that_was_stopped_goes_on(root, alone, tmp_path, monkeypatch):
    removed, remove = [], chunks.Folder.remove

    def stop(folder, chunk):
        remove(folder, chunk)
        removed.append(chunk.number)
        if len(removed) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chunks.Folder, "remove", stop)
        with pytest.raises(KeyboardInterrupt):
            _prepare(root, tmp_path)
    assert (tmp_path / "pets" / "incomplete.written").exists() and not (tmp_path / "pets" / load.VERSION).exists()
    names = []
    _prepare(root, tmp_path, read=lambda root: _counting(root, names))
    assert removed == [0, 1, 2] and len(names) == 6  # chunks of two that were joined already
    assert _files(tmp_path) == alone


def test_without_a_job_nothing_is_kept(root, tmp_path, monkeypatch):
    def stop(class_names):
        raise KeyboardInterrupt

    monkeypatch.setattr(record_files, "create_serializer", stop)
    with pytest.raises(KeyboardInterrupt):
        _prepare(root, tmp_path, job="")
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("share", "kept"), [(shares.ALL, "No partial output was kept"), ((0, 2), "What was read is kept")]
)
def test_a_full_disk_says_what_is_kept(root, tmp_path, monkeypatch, share, kept):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(chunks.Folder, "make", full)
    with pytest.raises(UserError, match=rf"pets cannot be written \(No space .* are needed\)\. {kept}\. Make room"):
        _prepare(root, tmp_path, shares.Share(*share))
    assert (tmp_path / "pets").exists() == (share != shares.ALL)


def test_processes_that_do_not_fit_together_are_refused(root, tmp_path):
    own = tmp_path / "pets" / "incomplete.chunks" / "0_of_2"
    own.mkdir(parents=True)
    with lock.hold(own, work="prepares"):
        with pytest.raises(lock.LockedError, match=r"--data_dir='.*/0_of_2' is in use: .* prepares the same share"):
            _prepare(root, tmp_path, shares.Share(0, 2))
        with pytest.raises(lock.LockedError, match=r"/0_of_2' is in use: .* prepares a share \(0 of 2\)"):
            _prepare(root, tmp_path, shares.Share(1, 3))

    def read(root):
        with pytest.raises(UserError, match="pets is in use: another process prepares it"):
            _prepare(root, tmp_path)
        return _read(root)

    _prepare(root, tmp_path, shares.Share(0, 2), read=read)


@pytest.mark.parametrize("per_chunk", [2, 3])  # it is the last of its chunk, or not
def test_records_of_an_image_whose_later_tile_is_damaged_are_left_out(tmp_path, per_chunk):
    root = own_layout.write(tmp_path / "source")
    whole = _prepare(root, tmp_path / "whole", read=own_layout.read_tiles)

    def read_records(item, raw):
        for number, record in enumerate(own_layout.read_tiles(root).read_records(item, raw)):
            if item.name == "train/cat/1.png" and number == 2:
                raise dataset.DataError("damaged at this tile")
            yield record

    def read(root):
        return dataclasses.replace(own_layout.read_tiles(root), read_records=read_records, images_per_chunk=per_chunk)

    assert _prepare(root, tmp_path / "out", shares.Share(0, 2), read=read) is None
    folder = _prepare(root, tmp_path / "out", shares.Share(1, 2), read=read).folder
    assert [problem.reason for problem in problems.read(folder)] == ["damaged at this tile"]
    kept, every = (load.read_splits(place, "pets")["train"] for place in (tmp_path / "out", tmp_path / "whole"))
    assert whole and len(every) == 6 * 4 and len(kept) == 5 * 4
    for index, name in enumerate(kept.names):
        np.testing.assert_array_equal(kept.read_image(index), every.read_image(every.names.index(name)))


def test_who_is_not_last_does_not_join(root, alone, tmp_path):
    """Another process looks at its share again, which is made already: chunks are not to be removed under its hands."""
    for index in (0, 1):
        assert _prepare(root, tmp_path, shares.Share(index, 3)) is None
    other = tmp_path / "pets" / "incomplete.chunks" / "1_of_3"
    with lock.hold(other):
        assert _prepare(root, tmp_path, shares.Share(2, 3)) is None
    assert _prepare(root, tmp_path, shares.Share(1, 3)) is not None
    assert _files(tmp_path) == alone


def test_the_summary_is_that_of_the_records(tmp_path):
    """GlaS numbers its objects; of pets, a mask is empty, one is missing, one has pixels that are ignored.

    Of the last one, images that come first, but not by their names, have masks that do not count.
    """
    official = glas_layout.write(tmp_path / "glas")
    root = own_layout.write(tmp_path / "own")
    objects = np.zeros(own_layout.SIZE, np.uint8)
    for number in (1, 2):
        own_layout.put(f"masks/train/cat/{number}.png", encoded.encode(objects))(root)
        objects[:, :20], objects[:, 30:] = 3, 255
    own_layout.edit("lists/train.csv", "masks/train/cat/0.png,cat", "masks/train/cat/0.png,cat,2,3,9,9")(root)
    own_layout.edit("lists/train.csv", "masks/train/dog/0.png,dog", ",dog")(root)
    rule = mask_rules.parse(">0", ignore="255", instances=True)
    normal = own_layout.write(tmp_path / "normal")
    for split, count in own_layout.SPLITS.items():
        lines = (normal / "lists" / f"{split}.csv").read_text().splitlines(keepends=True)
        (normal / "lists" / f"{split}.csv").write_text("".join(reversed(lines)))
        for index in range(count):
            own_layout.put(f"masks/{split}/dog/{index}.png", encoded.encode(np.zeros(own_layout.SIZE, np.uint8)))(
                normal
            )
    for name, read in (
        ("glas", lambda scratch: glas.read_raw(str(official))),
        ("tiles", lambda scratch: own_layout.read_tiles(root)),
        ("pets", lambda scratch: csv_files.read_raw(str(root), str(root / "lists"), mask_rule=rule)),
        ("normal", lambda _: dataclasses.replace(own_layout.read_lists(normal), background_classes=("dog",))),
    ):
        prepared = records.prepare(name, read, tmp_path / "out")
        text = summary.describe(str(tmp_path / "out"), name, prepared.masks)
        assert text == summary.describe(str(tmp_path / "out"), name)
    assert "Classes without a region: dog." in text and "without any foreground" not in text
    text = summary.describe(str(tmp_path / "out"), "pets")
    assert "Annotated instances: train 4, validation 2, test 4." in text
    assert "Masks without any foreground: train 1." in text


def test_serialized_records_are_those_of_tfds():
    """Features in the order of their names, so that each process writes the same bytes."""
    record = {
        "image": b"\x89PNG",
        "mask": b"",
        "instances": b"12",
        "boxes": np.float32([[0, 0.25, 0.5, 1]]),
        "label": "b",
        "name": "\xe9/1",
        "size": np.int32([3, 4]),
        "patient": "",
        "lossy": {},
    }
    content = record_files.create_serializer(("a", "b"))(record)
    assert content.index(b"boxes") < content.index(b"image") < content.index(b"label") < content.index(b"size")
    read = record_files.features(("a", "b")).deserialize_example_np(
        content, decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert read["image"] == b"\x89PNG" and read["mask"] == b"" and read["instances"] == b"12" and read["label"] == 1
    assert read["name"] == "\xe9/1".encode() and read["size"].tolist() == [3, 4]
    assert read["boxes"].tolist() == [[0, 0.25, 0.5, 1]]


def _command(source, out, *flags):
    return [
        *(sys.executable, "-m", "experiments.prepare_data", "--dataset=oxford_flowers"),
        *(f"--source={source}", f"--data_dir={out}", *flags),
    ]


@pytest.mark.slow
def test_one_of_two_processes_can_be_killed(tmp_path):
    flowers = flowers_layout.write(
        tmp_path / "flowers",
        np.arange(900) % 3 + 1,
        {"trnid": np.arange(1, 601), "valid": [601], "tstid": np.arange(602, 901)},
    )
    options = {"cwd": programs.ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    assert subprocess.run(_command(flowers, tmp_path / "one"), **options).returncode == 0
    expected = _files(tmp_path / "one")
    made = tmp_path / "out" / "oxford_flowers" / "incomplete.chunks"
    command = _command(flowers, tmp_path / "out", "--num_processes=2")
    killed = subprocess.Popen([*command, "--process_id=1"], **options)
    while killed.poll() is None and len(list(made.glob("*.json"))) < 2:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    number = len(list(made.glob("*.json")))
    assert 2 <= number < 14  # of 29 chunks
    first = subprocess.run([*command, "--process_id=0"], cwd=programs.ROOT, capture_output=True, text=True)
    assert first.returncode == 0 and not first.stdout and "chunks of others are not" in first.stderr
    assert number < len(list(made.glob("*.json"))) < 29
    # Starts both; preparing takes no GPU.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    environment["CUDA_VISIBLE_DEVICES"] = "0"
    done = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.count("Train with --config=oxford ") == 1, done.stderr
    assert _files(tmp_path / "out") == expected and expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num_processes=2", "--check"), "--check reads with one process. Leave out num_processes"),
        (
            ("--num_processes=2", "--process_id=1", "--download"),
            "--download is for one process. Run the",
        ),
        (("--num_processes=0",), "--num_processes=0 must be at least 1"),
    ],
)
def test_flags_that_do_not_fit(tmp_path, flags, message):
    done = programs.run("prepare-data", "--dataset=cub", f"--data_dir={tmp_path}", *flags)
    assert done.returncode == 1 and message in done.stderr


def test_the_program_prepares_a_share(root, alone, tmp_path):
    flags = (
        *("--dataset=image_folder", "--name=pets", f"--source={root / 'images'}", f"--masks={root / 'masks'}"),
        *(f"--data_dir={tmp_path}", "--skip_bad", "--num_processes=2"),
    )
    first = programs.run("prepare-data", *flags, "--process_id=1", ignore_warnings=True)
    assert first.returncode == 0 and not first.stdout and "chunks of others are not" in first.stderr
    last = programs.run("prepare-data", *flags, "--process_id=0", ignore_warnings=True)
    assert last.returncode == 0 and "Left out: 2 images (train 2)" in last.stdout
    assert _files(tmp_path).keys() == alone.keys()
    assert len(load.read_splits(tmp_path, "pets")["train"]) == 4
