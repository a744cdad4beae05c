"""What `predict --dry_run` says, that it leaves no trace, and that it refuses what a prediction refuses."""

import functools
import re

import numpy as np
from PIL import Image
import pytest

from minmax_jax.base import lock
from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.prediction import batches, dry_run, folder, inputs, options
from minmax_jax.runs.measured_work import Duration
from tests import programs
from tests.predictors import BrightPixels

_CARD = {"flips": {"horizontal": True, "vertical": False}, "scales": [1.0], "refine": {"enabled": False}}


def _write_images(root, *sizes):
    root.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        Image.fromarray(np.full((*size, 3), 10 * number, np.uint8)).save(root / f"{number}.png")


def _content(root):
    return {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}


def _create_predictor(**card):
    predictor = BrightPixels()
    predictor.card |= _CARD | card
    return predictor


def _describe(root, predictor=None, output="out", **changes):
    found = inputs.find([str(root / "in")])
    return dry_run.describe(
        predictor or _create_predictor(),
        *(found, root / output, options.Options(**{"batch_size": 2} | changes)),
        model={},
        results={},
    )


@pytest.fixture
def fixed(monkeypatch):
    """A batch takes 4 s, and 10 s more the first time, of which compiling takes 3; a tile takes 2 s."""
    monkeypatch.setattr(dry_run.estimate.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(dry_run, "_measure_images", lambda *_: Duration(4.0, 10.0, 3.0))
    monkeypatch.setattr(dry_run, "_measure_tiles", lambda *_: Duration(2.0, 5.0, 1.0))


def test_images_of_two_shapes(tmp_path, fixed):
    """Three of 64x64 are two batches of two, and one of 64x96 is one of 1.5 times the area."""
    _write_images(tmp_path / "in", (64, 64), (60, 40), (64, 64), (64, 96))
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (10, 40)).save(tmp_path / "in" / "small.png")
    lines = _describe(tmp_path).splitlines()
    assert lines[:2] == [
        f"Dry run: nothing is written to {tmp_path}/out.",
        "Images: 6, of which 0 are predicted already; 6 remain.",
    ]
    assert lines[2].startswith("Unreadable: 2 (6 of these were opened), such as: ") and "broken.png" in lines[2]
    assert lines[3] == "Shapes: 60x40 to 64x96 pixels; 2 padded sizes: 64x64, 64x96."
    assert lines[4] == "Views: 2 of each image (2 by mirroring, 1 by size), masks of the first stage."
    # (2 + 1.5) 4 s for batches; compiling: 10 - 3 s for the first shape, and 10 for the second.
    assert re.match(r"Expected: about 3[12] seconds, without the start and the tables. By part:", lines[5])
    assert "   0:14  4 images (2 s an image of 64x64, outputs included)" in lines
    assert "   0:17  tracing and compiling (measured; 1 programs of further shapes as those of the first)" in lines
    assert "Speed: 0.5 images/s, in batches of 2." in lines
    assert lines[-1].startswith("Memory: ")
    assert not (tmp_path / "out").exists()


def test_large_images_are_counted_in_tiles(tmp_path, fixed):
    """Tiles of 64 pixels without overlap: 2 x 2 of one image, 1 x 3 of another."""
    _write_images(tmp_path / "in", (128, 128), (64, 192))
    lines = _describe(tmp_path, tile_size=64, tile_overlap=0.0).splitlines()
    assert "Large images: 2, cut into 7 tiles of 64x64 pixels." in lines
    assert "   0:14  7 tiles (2 s each; blending and outputs left out)" in lines
    assert not any(line.startswith(("Shapes", "Speed")) for line in lines)


def test_the_views_of_a_model(tmp_path, fixed):
    _write_images(tmp_path / "in", (64, 64))
    both = {"horizontal": True, "vertical": True}
    predictor = _create_predictor(flips=both, scales=[0.75, 1.0, 1.5], refine={"enabled": True})
    text = _describe(tmp_path, predictor)
    assert "Views: 12 of each image (4 by mirroring, 3 by size), masks of the second stage." in text


def test_of_many_files_some_are_opened(tmp_path, fixed, monkeypatch):
    """Two of four: each counts twice."""
    monkeypatch.setattr(batches, "_MAX_OPENED", 2)
    _write_images(tmp_path / "in", (64, 64), (64, 64), (64, 64), (128, 128))
    text = _describe(tmp_path, tile_size=64, tile_overlap=0.0)
    assert "Unreadable: 0 (2 of these were opened; " in text
    assert "Large images: 2, cut into 8 tiles" in text and "   0:08  2 images (2 s an image" in text  # two batches


def test_a_resumed_prediction(tmp_path, fixed):
    """What is done does not count, and nothing in the folder changes."""
    _write_images(tmp_path / "in", (64, 64), (64, 64), (64, 64))
    found, chosen = inputs.find([str(tmp_path / "in")]), options.Options(batch_size=2)
    predict = functools.partial(folder.predict, _create_predictor(), model={}, results={})
    predict(found[:2], tmp_path / "out", chosen)
    before = _content(tmp_path)
    text = _describe(tmp_path)
    assert "Images: 3, of which 2 are predicted already; 1 remain." in text and "  1 images (" in text
    assert _content(tmp_path) == before
    predict(found, tmp_path / "out", chosen)
    assert _describe(tmp_path).endswith("Expected: nothing but the tables, all images are predicted.")


def test_images_and_tiles_are_measured_by_the_programs_that_predict_them(tmp_path):
    _write_images(tmp_path / "in", (64, 64), (40, 64), (64, 64), (128, 128))
    measured, used = _create_predictor(), _create_predictor()
    text = _describe(tmp_path, measured, tile_size=64)
    assert "  3 images (" in text and "  9 tiles (" in text
    # A batch that is not timed and two that are, and of tiles one more that is read ahead.
    assert measured.shapes[:3] == [(2, 64, 64, 3)] * 3 and len(measured.shapes) <= 3 + 3
    found = inputs.find([str(tmp_path / "in")])
    folder.predict(used, found, tmp_path / "out", options.Options(batch_size=2, tile_size=64), model={}, results={})
    assert set(measured.shapes) == set(used.shapes)


def test_the_first_batch_is_not_counted(tmp_path, monkeypatch):
    """Three batches of two images end after 10, 12 and 14 s."""
    times = iter([0.0, 0.0, 0.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0])
    monkeypatch.setattr(dry_run.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(folder, "predict_some", lambda *_, update, **__: [update(1) for _ in range(6)])
    _write_images(tmp_path / "in", (64, 64), (64, 64), (64, 64))
    lines = _describe(tmp_path).splitlines()
    assert "   0:04  3 images (1 s an image of 64x64, outputs included)" in lines  # two batches
    assert "   0:08  tracing and compiling (measured)" in lines and "Speed: 1 images/s, in batches of 2." in lines


def test_folders_that_a_prediction_refuses(tmp_path):
    _write_images(tmp_path / "in", (64, 64))
    (tmp_path / "out").mkdir()
    with lock.hold(tmp_path / "out"), pytest.raises(lock.LockedError, match="--output=.* predicts in it"):
        _describe(tmp_path)
    (tmp_path / "out" / "notes.txt").write_text("of others")
    with pytest.raises(OptionError, match="is not empty, and holds no predictions"):
        _describe(tmp_path)
    with pytest.raises(UserError, match=r"cannot be written \(.*Not a directory"):
        _describe(tmp_path, output="in/0.png/out")


def test_from_the_command_line(tiny_run, tmp_path):
    _write_images(tmp_path / "in", (32, 32), (32, 32))
    flags = (f"--workdir={tiny_run[0]}", f"--output={tmp_path}/out", "--dry_run", tmp_path / "in")
    done = programs.run("predict", *flags)
    assert done.returncode == 0, done.stderr
    assert "Images: 2, of which 0 are predicted already" in done.stdout and "  2 images (" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    done = programs.run("predict", *flags, "--threshold=2")
    assert done.returncode == 1 and "--threshold=2.0 must be" in done.stderr
