"""Processes that share a prediction write what one process writes, whatever their order, number and deaths."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest

from minmax_jax.base import lock
from minmax_jax.base.shares import ALL, Share
from minmax_jax.prediction import folder, inputs, share_folders
from tests import programs
from tests.predictors import BrightPixels, stopped_after

_EVERYTHING = {"geojson": True, "coco": True, "soft_masks": True}


@pytest.fixture
def images(tmp_path):
    """Nine images of several sizes, and two files that are none."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate("abcdefghi"):
        pixels = np.zeros((40 + 7 * number, 90 - 5 * number, 3), np.uint8)
        pixels[10 : 20 + number, 5:30, 1] = 255
        pixels[..., 0] = 255 * (number % 3 == 0)
        Image.fromarray(pixels).save(tmp_path / f"in/{name}.png")
    for name in ("cc", "z"):
        (tmp_path / f"in/{name}.png").write_bytes(b"no image")


def _predict(tmp_path, share=ALL, *, out="out", predictor=None, **options):
    return folder.predict(
        predictor or BrightPixels(),
        inputs.find([str(tmp_path / "in")]),
        tmp_path / out,
        folder.Options(**{"batch_size": 2} | _EVERYTHING | options),
        model={"state_digest": "1"},
        results={},
        share=share,
    )


def _content(path: pathlib.Path) -> dict[str, bytes]:
    """All files below a folder, but for the lock."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != lock.NAME
    }


@pytest.fixture
def expected(tmp_path, images):
    """What one process writes."""
    manifest = _predict(tmp_path, out="alone")
    assert manifest["num_images"] == 9 and len(manifest["skipped"]) == 2
    return _content(tmp_path / "alone")


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 3, 1), (5, 4, 3, 2, 1, 0)])
def test_the_last_process_joins_what_one_process_writes(tmp_path, expected, order):
    for index in order[:-1]:
        assert _predict(tmp_path, Share(index, len(order))) is None
        assert not (tmp_path / "out/manifest.json").exists()
    manifest = _predict(tmp_path, Share(order[-1], len(order)))
    assert manifest == json.loads(expected["manifest.json"])
    assert _content(tmp_path / "out") == expected


def test_each_image_is_predicted_once(tmp_path, images):
    for index in range(2):
        predictor = BrightPixels()
        _predict(tmp_path, Share(index, 2), predictor=predictor, batch_size=1)
        assert len(predictor.shapes) == (5, 4)[index]  # of 11 files, 6 and 5 with one each that is no image


def test_a_killed_process_is_rerun_alone(tmp_path, expected, monkeypatch):
    assert _predict(tmp_path, Share(0, 3)) is None
    with stopped_after(monkeypatch, 1):
        _predict(tmp_path, Share(1, 3))
    assert _predict(tmp_path, Share(2, 3)) is None
    assert not (tmp_path / "out/manifest.json").exists()
    predictor = BrightPixels()
    assert _predict(tmp_path, Share(1, 3), predictor=predictor, batch_size=2)["num_images"] == 9
    assert len(predictor.shapes) == 2  # of its four files one is no image, and one was done
    assert _content(tmp_path / "out") == expected


@pytest.mark.parametrize("share", [ALL, Share(1, 2)])
def test_another_number_of_processes_goes_on(tmp_path, expected, monkeypatch, share):
    with stopped_after(monkeypatch, 2):
        _predict(tmp_path, Share(0, 3))
    with stopped_after(monkeypatch, 2):
        _predict(tmp_path, Share(2, 3))
    predictor = BrightPixels()
    if share.count == 2:
        assert _predict(tmp_path, Share(0, 2), predictor=predictor) is None
    assert _predict(tmp_path, share, predictor=predictor)["num_images"] == 9
    assert len(predictor.shapes) <= 5
    assert _content(tmp_path / "out") == expected


def test_processes_go_on_where_one_was_killed(tmp_path, expected, monkeypatch):
    with stopped_after(monkeypatch, 4):
        _predict(tmp_path)
    predictor = BrightPixels()
    assert _predict(tmp_path, Share(1, 2), predictor=predictor) is None
    assert _predict(tmp_path, Share(0, 2), predictor=predictor)["num_images"] == 9
    assert len(predictor.shapes) <= 5
    assert _content(tmp_path / "out") == expected


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_runs_again_leaves_the_prediction_complete(tmp_path, expected, index):
    """As a scheduler does that requeues a task, in the end or before."""
    for number in (0, 0, 1):
        _predict(tmp_path, Share(number, 2))
    assert _predict(tmp_path, Share(index, 2)) == json.loads(expected["manifest.json"])
    assert _content(tmp_path / "out") == expected


def test_an_image_that_changed_or_came_in_between_is_predicted(tmp_path, images):
    for index in range(2):
        _predict(tmp_path, Share(index, 2))
    red = np.zeros((40, 90, 3), np.uint8)
    red[..., 0] = 255
    for name in ("b", "bb"):
        Image.fromarray(red).save(tmp_path / f"in/{name}.png")
    predictor = BrightPixels()
    results = [_predict(tmp_path, Share(index, 2), predictor=predictor) for index in range(2)]
    assert results[0] is None and results[1]["num_images"] == 10
    rows = map(json.loads, (tmp_path / "out/predictions.jsonl").read_text().splitlines())
    assert {row["stem"]: row["class"] for row in rows if row["stem"].startswith("b")} == {"b": "red", "bb": "red"}
    assert len(predictor.shapes) == 2


@pytest.mark.parametrize("share", [ALL, Share(0, 2), Share(1, 3)])
def test_processes_that_do_not_fit_are_refused(tmp_path, images, share):
    assert _predict(tmp_path, Share(1, 3)) is None
    own = share_folders.place(tmp_path / "out", Share(1, 3))
    with lock.hold(own), pytest.raises(lock.LockedError, match=r"1_of_3' is in use: process .* predicts"):
        _predict(tmp_path, share)
    assert _predict(tmp_path, Share(0, 3)) is None
    assert _predict(tmp_path, Share(2, 3))["num_images"] == 9


def test_nothing_is_joined_while_another_process_is_at_work(tmp_path, images, caplog):
    caplog.set_level("INFO", "minmax_jax")
    for index in range(2):
        _predict(tmp_path, Share(index, 2))
    assert _predict(tmp_path, Share(0, 2)) is not None
    own = share_folders.place(tmp_path / "out", Share(1, 2))
    own.mkdir(parents=True)
    with lock.hold(own):  # it has begun again
        assert _predict(tmp_path, Share(0, 2)) is None
    assert "others are at work (1_of_2)" in caplog.text


def test_files_that_are_added_move_others_to_another_process_and_no_row_is_lost(tmp_path, images):
    assert _predict(tmp_path, Share(0, 2), batch_size=1) is None
    (tmp_path / "in/0.png").write_bytes((tmp_path / "in/a.png").read_bytes())
    predictor = BrightPixels()
    for index in range(2):
        found = _predict(tmp_path, Share(index, 2), predictor=predictor, batch_size=1)
    assert found["num_images"] == 10 and len(predictor.shapes) == 5  # four of the other process, and the new one


def test_a_file_that_took_the_place_of_a_skipped_one_is_predicted(tmp_path, images):
    for index in range(2):
        _predict(tmp_path, Share(index, 2))
    intact = (tmp_path / "in/a.png").read_bytes()
    (tmp_path / "in/cc.png").write_bytes(intact)  # of the second process
    (tmp_path / "in/z.png").write_bytes(intact)  # of the first
    assert _predict(tmp_path, Share(0, 2)) is None
    assert not (tmp_path / "out/manifest.json").exists()
    manifest = _predict(tmp_path, Share(1, 2))
    assert manifest["num_images"] == 11 and not manifest["skipped"]
    for index in range(2):  # a share that is finished skips no file that came later
        (tmp_path / "in/z.png").write_bytes(b"no image" if index else intact + b"0")
        found = _predict(tmp_path, Share(index, 2))
    assert found is None
    assert _predict(tmp_path, Share(0, 2))["num_images"] == 10


def test_shares_of_other_files_are_not_joined(tmp_path, images, caplog):
    more = tmp_path / "more"
    more.mkdir()
    (more / "y.png").write_bytes((tmp_path / "in/a.png").read_bytes())
    named = [str(tmp_path / "in"), str(more)]
    arguments = dict(model={"state_digest": "1"}, results={})
    options = folder.Options(batch_size=2, **_EVERYTHING)
    assert (
        folder.predict(BrightPixels(), inputs.find(named), tmp_path / "out", options, share=Share(1, 2), **arguments)
        is None
    )
    assert _predict(tmp_path, Share(0, 2)) is None
    assert "1_of_2 had other files than this one has now" in caplog.text
    assert _predict(tmp_path, Share(1, 2))["num_images"] == 9


def test_the_same_folder_by_another_path_is_the_same(tmp_path, images, monkeypatch):
    assert _predict(tmp_path, Share(0, 2)) is None
    monkeypatch.chdir(tmp_path)
    options = folder.Options(batch_size=2, **_EVERYTHING)
    found = folder.predict(
        BrightPixels(),
        inputs.find(["in"]),
        tmp_path / "out",
        options,
        model={"state_digest": "1"},
        results={},
        share=Share(1, 2),
    )
    assert found["num_images"] == 9 and len(found["skipped"]) == 2


def test_what_a_killed_join_left_is_removed(tmp_path, expected):
    (tmp_path / "out").mkdir()
    assert _predict(tmp_path, Share(0, 2)) is None
    for name in ("predictions.jsonl", "coco.json"):
        (tmp_path / f"out/{name}.123.new").write_text("cut o")
    _predict(tmp_path, Share(1, 2))
    assert _content(tmp_path / "out") == expected


def test_nobody_waits_for_a_process_that_predicts_alone(tmp_path, images):
    (tmp_path / "out").mkdir()
    start = time.monotonic()
    with lock.hold(tmp_path / "out"), pytest.raises(lock.LockedError, match="predicts in it. Wait for it"):
        _predict(tmp_path, Share(0, 2))
    assert time.monotonic() - start < 10


def test_a_process_waits_for_others_that_begin(tmp_path, images, monkeypatch):
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", _HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        start = time.monotonic()
        assert _predict(tmp_path, Share(0, 2)) is None
        assert time.monotonic() - start > 0.5
    assert holder.returncode == 0


_HOLD = """
import pathlib, sys, time
from minmax_jax.base import lock
with lock.hold(pathlib.Path(sys.argv[1]), max_wait=1):
    print("held", flush=True)
    time.sleep(1)
"""


# The program.


def _command(run, out: pathlib.Path, *flags: str) -> list[str]:
    chosen = [
        f"--workdir={run}",
        f"--output={out}",
        "--geojson",
        "--coco",
        "--soft_masks",
        "--batch_size=2",
        *flags,
        "-",
    ]
    return [sys.executable, "-m", "experiments.predict", *chosen]


_OPTIONS = dict(cwd=programs.ROOT, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--num_processes=2"], ["--num_processes=4"]])
def test_one_command_starts_all_processes(tiny_run, tmp_path, images, flags):
    for out, more in (("alone", []), ("out", flags)):
        command = _command(tiny_run[0], tmp_path / out, *more)
        done = subprocess.run(command, input=f"{tmp_path}/in\n", capture_output=True, **_OPTIONS)
        assert done.returncode == 3, done.stderr
        assert done.stdout.count("9 images predicted") == 1 and ", 2 skipped" in done.stdout
    assert _content(tmp_path / "out") == _content(tmp_path / "alone")


@pytest.mark.slow
def test_a_killed_process_of_a_command_is_named_and_the_same_command_goes_on(tiny_run, tmp_path, images):
    command = _command(tiny_run[0], tmp_path / "out", "--num_processes=2")
    (tmp_path / "list").write_text(f"{tmp_path}/in\n")
    with (tmp_path / "list").open() as listed:
        started = subprocess.Popen(command, stdin=listed, stderr=subprocess.PIPE, **_OPTIONS)
    end = time.monotonic() + 60
    while not (tmp_path / "out/shares/1_of_2" / lock.NAME).exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(json.loads((tmp_path / "out/shares/1_of_2" / lock.NAME).read_text() or "{}")["process"], signal.SIGKILL)
    _, written = started.communicate(timeout=60)
    assert started.returncode == 1 and "Process 1 was ended by SIGKILL." in written
    assert not (tmp_path / "out/manifest.json").exists()
    for out, more in (("out", ["--num_processes=2"]), ("alone", [])):
        command = _command(tiny_run[0], tmp_path / out, *more)
        assert subprocess.run(command, input=f"{tmp_path}/in\n", **_OPTIONS).returncode == 3
    assert _content(tmp_path / "out") == _content(tmp_path / "alone")


def test_an_error_of_all_processes_is_shown_once(tmp_path, images):
    command = _command(tmp_path / "none", tmp_path / "out", "--num_processes=3")
    done = subprocess.run(command, input=f"{tmp_path}/in\n", capture_output=True, **_OPTIONS)
    assert (
        done.returncode == 1
        and done.stderr.count("Error:") == done.stderr.count("is written when a run has finished") == 1
    )
