"""Microns a pixel: what files say, how images of another magnification are predicted, and areas in square microns."""

import json
import logging
import sys

import numpy as np
from PIL import Image
import pytest
import shapely

from minmax_jax.data import pixel_size
from minmax_jax.prediction import folder, inputs
from tests import tiled_tiff
from tests.predictors import BrightPixels

_INCH, _CENTIMETRE, _NONE = 2, 3, 1


def _save(path, *, unit=_CENTIMETRE, x=20000.0, y=None, size=(90, 120), tiled=False):
    """A TIFF with so many pixels a unit; a green disc in its middle."""
    rows, columns = np.indices(size)
    disc = np.hypot(rows - size[0] / 2, columns - size[1] / 2) < 0.3 * min(size)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[disc, 1] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    if tiled:
        path.write_bytes(tiled_tiff.encode(pixels, resolution=(x, x), resolutionunit=unit))
    else:
        Image.fromarray(pixels).save(path, tiffinfo={282: x, 283: y or x, 296: unit})
    return disc


@pytest.mark.parametrize(
    ("unit", "x", "y", "expected"),
    [
        (_CENTIMETRE, 20000, None, 0.5),
        (_INCH, 50800, None, 0.5),
        (_CENTIMETRE, 20000, 21000, (0.5 + 10 / 21) / 2),
        (_CENTIMETRE, 20000, 25000, None),  # no square pixels
        (_INCH, 72, None, None),  # what programs write unasked
        (_INCH, 300, None, None),
        (_INCH, 1200, None, None),  # paper
        (_NONE, 20000, None, None),
    ],
)
def test_what_a_tiff_says(tmp_path, unit, x, y, expected):
    _save(tmp_path / "a.tif", unit=unit, x=x, y=y)
    assert pixel_size.read(tmp_path / "a.tif").microns == (expected and pytest.approx(expected, rel=1e-6))


def test_what_a_slide_says(tmp_path, monkeypatch):
    _save(tmp_path / "a.tif", x=40000, tiled=True)
    assert pixel_size.read(tmp_path / "a.tif").microns == pytest.approx(0.25)
    monkeypatch.setitem(sys.modules, "openslide", None)
    assert pixel_size.read(tmp_path / "a.tif").microns == pytest.approx(0.25)  # its tags are those of any TIFF


def test_other_files_say_nothing(tmp_path):
    pixels = Image.new("RGB", (40, 40))
    pixels.save(tmp_path / "a.png", dpi=(50800, 50800))
    pixels.save(tmp_path / "a.jpg", dpi=(50800, 50800))
    pixels.save(tmp_path / "plain.tif")
    (tmp_path / "damaged.tif").write_bytes((tmp_path / "plain.tif").read_bytes()[:30])
    (tmp_path / "tiled.tif").write_bytes(tiled_tiff.encode(np.zeros((70, 70, 3), np.uint8)))
    (tmp_path / "wrong.tif").write_bytes(tiled_tiff.encode(np.zeros((70, 70, 3), np.uint8), compression=4711))
    for name in ("a.png", "a.jpg", "plain.tif", "damaged.tif", "tiled.tif", "wrong.tif"):
        assert pixel_size.read(tmp_path / name).microns is None, name


@pytest.mark.parametrize(
    ("microns", "of_training", "expected"),
    [
        (0.5, 0.25, 2),
        (0.25, 0.5, 0.5),
        (0.52, 0.5, 1),
        (0.48, 0.5, 1),
        (None, 0.5, 1),
        (0.5, 0, 1),
        (0.551, 0.5, 1.102),
    ],
)
def test_more_than_ten_percent_are_rescaled(microns, of_training, expected):
    assert pixel_size.rescaling(microns, of_training) == pytest.approx(expected)


def _predict(tmp_path, predictor, **options):
    folder.predict(
        predictor,
        inputs.find([str(tmp_path / "in")]),
        tmp_path / "out",
        folder.Options(geojson=True, tolerance=0.0, **options),
        model={},
        results={},
    )
    (line,) = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    features = json.loads((tmp_path / "out/geojson/a.geojson").read_text())["features"]
    return json.loads(line), features


class _Resizing(BrightPixels):
    """As a predictor: its masks get the size of the image back."""

    def finish_mask(self, mask, prepared_size, size):
        mask = super().finish_mask(mask, prepared_size, prepared_size)
        return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.BILINEAR))


@pytest.mark.parametrize("tile_size", [None, 48])
def test_another_magnification_is_rescaled(tmp_path, caplog, tile_size):
    disc = _save(tmp_path / "in/a.tif", x=20000, tiled=tile_size is not None)
    predictor = _Resizing(microns_per_pixel=0.25)
    with caplog.at_level(logging.INFO, "minmax_jax"):
        row, features = _predict(tmp_path, predictor, tile_size=tile_size)
    assert "1 of 1 images have another pixel size than the images of the training, 0.25 microns" in caplog.text
    assert "a.tif has 0.5 microns a pixel. They are resized by 2." in caplog.text
    assert predictor.shapes[0][1:3] == ((192, 256) if tile_size is None else (96, 96))  # of 180 x 240, padded
    assert row["microns_per_pixel"] == 0.5 and row["rescaling"] == 2 and row["flags"] == []
    assert (row["height"], row["width"]) == (90, 120)
    (feature,) = features
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert ring.min(0) == pytest.approx([60 - 27, 45 - 27], abs=1) and ring.max(0) == pytest.approx([87, 72], abs=1)
    measurements = feature["properties"]["measurements"]
    assert measurements["Area px"] == pytest.approx(disc.sum(), rel=0.03)
    assert measurements["Area um^2"] == pytest.approx(measurements["Area px"] / 4)
    assert shapely.Polygon(ring).area == pytest.approx(measurements["Area px"], rel=0.05)


def test_or_flagged(tmp_path):
    _save(tmp_path / "in/a.tif")
    predictor = BrightPixels(microns_per_pixel=0.25)
    row, _ = _predict(tmp_path, predictor, rescale=False)
    assert predictor.shapes == [(1, 96, 128, 3)] and row["rescaling"] == 1
    (flag,) = row["flags"]
    assert "0.5 microns a pixel, the images of the training 0.25" in flag


def test_what_is_given_counts_and_not_what_the_file_says(tmp_path):
    _save(tmp_path / "in/a.tif")
    row, (feature,) = _predict(tmp_path, BrightPixels(microns_per_pixel=0.25), microns_per_pixel=0.26)
    measurements = feature["properties"]["measurements"]
    assert row["microns_per_pixel"] == 0.26 and row["rescaling"] == 1
    assert measurements["Area um^2"] == pytest.approx(measurements["Area px"] * 0.26**2, rel=1e-6)


def test_what_nobody_knows_is_said_once(tmp_path, caplog):
    _save(tmp_path / "in/a.tif", unit=_NONE)
    row, (feature,) = _predict(tmp_path, BrightPixels(microns_per_pixel=0.25))
    assert row["microns_per_pixel"] is None and row["flags"] == []
    assert "Area um^2" not in feature["properties"]["measurements"]
    assert "1 of 1 images do not say how many microns a pixel has: 0.25" in caplog.text


def test_an_impossible_magnification_is_skipped(tmp_path):
    _save(tmp_path / "in/a.tif", x=1500)  # 6.7 microns
    manifest = folder.predict(
        BrightPixels(microns_per_pixel=0.02),
        inputs.find([str(tmp_path / "in")]),
        tmp_path / "out",
        folder.Options(),
        model={},
        results={},
    )
    (skipped,) = manifest["skipped"]
    assert "a.tif" in skipped["reason"] and "scale=333" in skipped["reason"]
