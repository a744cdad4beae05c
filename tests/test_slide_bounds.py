"""Slides with bounds: images, masks, tiles and polygons start where QuPath and the bounds do."""

import json
import logging
import pathlib

import numpy as np
import openslide
from PIL import Image
import pytest

from minmax_jax.data import dataset, image_files, slide_windows, slides
from minmax_jax.data.importing import mask_rules, raw_dataset, slide_masks, tiles
from minmax_jax.prediction import folder, inputs
from tests import encoded, scn_slide, tiled_tiff
from tests.predictors import BrightPixels

TOP, LEFT = 40, 72
SLIDE, AREA = (224, 320), (128, 160)


@pytest.fixture(scope="module")
def disc():
    """[h, w] bool, an object in the scanned area: rows 40 to 80, columns 80 to 120."""
    rows, columns = np.indices(AREA)
    return np.hypot(rows - 59.5, columns - 99.5) < 20


@pytest.fixture
def slide(tmp_path, disc):
    pixels = np.full((*AREA, 3), (200, 0, 120), np.uint8)
    pixels[disc] = (200, 255, 120)
    path = tmp_path / "in/a.scn"
    scn_slide.write(path, pixels, place=(TOP, LEFT), size=SLIDE)
    with openslide.OpenSlide(path) as opened:
        assert opened.dimensions == SLIDE[::-1] and int(opened.properties["openslide.bounds-x"]) == LEFT
    return path, pixels


def test_an_image_is_what_is_inside_of_the_bounds(slide):
    path, pixels = slide
    image = slides.open_image(path)
    assert image.size == AREA and image.bounds == (LEFT, TOP, AREA[1], AREA[0]) and image.slide_size == SLIDE
    np.testing.assert_array_equal(image.read((0, 0, *AREA), AREA), pixels)
    np.testing.assert_array_equal(image.read((50, 80, 90, 140), (40, 60)), pixels[50:90, 80:140])


@pytest.mark.parametrize("tile_size", [0, 64])
def test_predictions_start_at_the_bounds(tmp_path, slide, disc, tile_size):
    found = inputs.find([str(slide[0])])
    options = folder.Options(geojson=True, coco=True, tolerance=0.0, tile_size=tile_size)
    folder.predict(BrightPixels(), found, tmp_path / "out", options, model={}, results={})
    (row,) = map(json.loads, (tmp_path / "out/predictions.jsonl").read_text().splitlines())
    assert row["bounds"] == [LEFT, TOP, AREA[1], AREA[0]]
    assert (row["height"], row["width"], row["microns_per_pixel"]) == (*AREA, pytest.approx(0.5))
    with Image.open(tmp_path / "out/masks/a.png") as mask, Image.open(tmp_path / "out/overlays/a.png") as overlay:
        assert mask.size == overlay.size == AREA[::-1]
        assert (np.asarray(mask, bool) != disc).mean() < 0.002
    (feature,) = json.loads((tmp_path / "out/geojson/a.geojson").read_text())["features"]
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert ring.min(0) == pytest.approx([80, 40], abs=1) and ring.max(0) == pytest.approx([120, 80], abs=1)
    (annotation,) = json.loads((tmp_path / "out/coco.json").read_text())["annotations"]
    assert annotation["bbox"] == pytest.approx([80, 40, 40, 40], abs=1)


def _read_tiles(path, mask=None, boxes=()):
    item = raw_dataset.Item("a", "a", path, mask, boxes)
    raw = raw_dataset.RawDataset(("a",), {"train": [item]}, mask_rules.above(0), description="")
    return list(tiles.read_records(item, raw, tiling=tiles.Tiling(64)))


def _decode(content):
    return np.asarray(image_files.open_picture(content, "mask"))


@pytest.mark.parametrize("encode", [encoded.encode, tiled_tiff.encode])
@pytest.mark.parametrize("frame", ["the bounds", "the whole slide"])
def test_masks_of_tiles_in_either_frame(tmp_path, slide, disc, encode, frame, caplog):
    path, pixels = slide
    values = disc.astype(np.uint8)
    if frame == "the whole slide":
        values = np.zeros(SLIDE, np.uint8)
        values[TOP : TOP + AREA[0], LEFT : LEFT + AREA[1]] = disc
    (tmp_path / "mask.tif").write_bytes(encode(values))
    with caplog.at_level(logging.INFO, "minmax_jax"):
        records = _read_tiles(path, tmp_path / "mask.tif", boxes=((40, 80, 80, 120),))
    assert f"mask.tif covers {frame} of its image" in caplog.text
    assert [record["name"] for record in records] == [f"a/{y}_{x}" for y in (0, 64) for x in (0, 64, 96)]
    for record in records:
        top, left = map(int, record["name"][2:].split("_"))
        window = np.s_[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(image_files.read_rgb(record["image"], "tile"), pixels[window])
        np.testing.assert_array_equal(_decode(record["mask"]), disc[window])
    np.testing.assert_allclose(records[1]["boxes"], [[40 / 64, 16 / 64, 1, 56 / 64]])


def test_coarse_masks_in_either_frame(tmp_path, slide):
    """A quarter of the resolution: 56x80 is the whole slide, 32x40 its bounds; the left half is foreground."""
    image = slides.open_image(slide[0])
    for size, left_half in (((56, 80), (LEFT + AREA[1] // 2) // 4), ((32, 40), 20)):
        values = np.zeros(size, np.uint8)
        values[:, :left_half] = 1
        (tmp_path / "mask.png").write_bytes(encoded.encode(values))
        mask = slide_masks.open_mask(tmp_path / "mask.png", image, rule=mask_rules.above(0))
        found = mask.read((0, 0, *AREA), AREA)
        assert found[:, :80].all() and not found[:, 80:].any()


def test_masks_of_another_shape_and_of_both(tmp_path, caplog):
    scn_slide.write(tmp_path / "a.scn", np.zeros((64, 96, 3), np.uint8), place=(64, 96), size=(192, 288))
    image = slides.open_image(tmp_path / "a.scn")
    (tmp_path / "mask.png").write_bytes(encoded.encode(np.ones((50, 50), np.uint8)))
    with pytest.raises(
        dataset.DataError, match=r"\(50, 50\) .* \(64, 96\), or \(192, 288\) of the whole slide: the shapes"
    ):
        slide_masks.open_mask(tmp_path / "mask.png", image, rule=mask_rules.above(0))
    values = np.zeros((32, 48), np.uint8)
    values[:16] = 1
    (tmp_path / "mask.png").write_bytes(encoded.encode(values))
    mask = slide_masks.open_mask(tmp_path / "mask.png", image, rule=mask_rules.above(0))
    assert "is read as covering the bounds. Save it with the (64, 96) or (192, 288) pixels" in caplog.text
    found = mask.read((0, 0, 64, 96), (64, 96))
    assert found[:32].all() and not found[32:].any()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((10, 20, 100, 50), (10, 20, 100, 50)),
        ((-10, 20, 100, 50), (0, 20, 90, 50)),
        ((100, 20, 500, 500), (100, 20, 100, 130)),
        ((0, 0, 200, 150), None),
        ((300, 20, 10, 10), None),
        ((10, 20, 0, 50), None),
        ((10, 20, 100, "x"), None),
        ((10, 20, 100, None), None),
    ],
)
def test_bounds_of_any_slide(monkeypatch, given, expected):
    """What OpenSlide may say; a slide of 200 x 150 pixels."""
    names = ("x", "y", "width", "height")

    class Slide:
        dimensions = (200, 150)

        def __init__(self):
            bounds = {f"openslide.bounds-{name}": str(v) for name, v in zip(names, given) if v is not None}
            self.properties = bounds | {"openslide.vendor": "mirax"}

        def read_region(self, place, level, size):
            return Image.fromarray(np.full((size[1], size[0], 4), (*place, 0, 255), np.uint8))

        def get_best_level_for_downsample(self, factor):
            return 0

        level_downsamples = (1.0,)

    monkeypatch.setattr(slide_windows, "open_slide", lambda path: Slide())
    image = slides.open_image(pathlib.Path("a.mrxs"))
    assert image.bounds == expected
    left, top, width, height = expected or (0, 0, 200, 150)
    assert image.size == (height, width)
    assert image.read((0, 0, 10, 10), (10, 10))[0, 0].tolist() == [left, top, 0]
