"""Large images: when they are cut, what becomes of their tiles, and that seams cannot be seen in what is written."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
import pytest
from scipy import ndimage
import shapely

from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.data import preprocessing, slides, stains
from minmax_jax.method import Prediction
from minmax_jax.minmax import method as minmax
from minmax_jax.prediction import folder, inputs, sources
from minmax_jax.prediction.large import large_images, resampling, tile_scores
from minmax_jax.prediction.outputs import image_outputs, region_files
from minmax_jax.refinement import calibration
from tests import tiled_tiff
from tests.predictors import BrightPixels, stopped_after

CROP = (64, 64)


@pytest.fixture
def green():
    """[300, 420] uint8: smooth, with regions that are larger than a tile, one around others, and small ones."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).uniform(size=(300, 420)), 6)
    values = 0.5 + 8 * (noise - noise.mean())
    y, x = np.indices(values.shape)
    distance = np.hypot(y - 150, x - 200)
    values += np.exp(-(((distance - 110) / 8) ** 2))  # a ring
    return np.clip(255 * values, 0, 255).astype(np.uint8)


def _colours(green, *, red=0):
    return np.stack([np.full_like(green, red), green, np.zeros_like(green)], axis=-1)


def _predict(tmp_path, predictor=None, **options):
    return folder.predict(
        predictor or BrightPixels(crop_size=CROP),
        inputs.find([str(tmp_path / "in")]),
        tmp_path / "out",
        folder.Options(**{"tile_size": 64, "tolerance": 0.0} | options),
        model={},
        results={},
    )


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        path.write_bytes(tiled_tiff.encode(image))
    else:
        Image.fromarray(image).save(path)


def _read_row(tmp_path):
    (line,) = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    return json.loads(line)


# When and how they are cut.


@pytest.mark.parametrize(
    ("size", "prepare", "tile_size", "expected"),
    [
        ((256, 256), {}, None, None),  # 16 crops
        ((257, 256), {}, None, ((257, 256), 64)),
        ((2000, 1000), {"scale": 0.5}, None, ((1000, 500), 64)),
        ((300, 250), {"scale": 0.8}, None, None),
        ((1000, 1500), {"max_side": 80}, None, None),
        ((5000, 6000), {"max_side": 80}, None, ((80, 96), 96)),  # too many pixels to read at once: one tile
        ((5000, 6000), {}, 0, None),
        ((256, 256), {}, 100, ((256, 256), 128)),  # tiles have sides that need no padding
        ((100, 90), {}, 100, None),
        ((128, 90), {}, 100, None),
        ((2000, 1000), {"scale": 0.5}, 200, ((1000, 500), 128)),
        # Each tile is preprocessed as if it was an image.
        ((2000, 1000), {"max_side": 64}, 500, ((256, 128), 64)),
        ((3000, 40), {"scale": 0.5}, None, None),  # refused
        ((3000, 40), {"scale": 0.5}, 100, None),
    ],
)
def test_what_is_too_large_for_one_pass(size, prepare, tile_size, expected):
    found = sources.find_tiling(size, preprocessing.Preprocessing(**prepare), crop_size=CROP, tile_size=tile_size)
    assert found == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("tile_size", 31), ("tile_size", -1), ("tile_overlap", 0.8), ("tile_overlap", -0.1), ("microns_per_pixel", -1)],
)
def test_impossible_options_are_named(field, value):
    with pytest.raises(OptionError, match=f"{field}="):
        folder.Options(**{field: value})


# What is written.


@pytest.mark.parametrize("ending", ["tif", "png"])
@pytest.mark.parametrize("tile_overlap", [0.0, 0.25])
def test_a_pointwise_prediction_comes_out_unchanged(tmp_path, monkeypatch, green, ending, tile_overlap):
    monkeypatch.setattr(resampling, "MAX_PIXELS", 420 * 37)
    _write(tmp_path / f"in/a.{ending}", _colours(green))
    predictor = BrightPixels(crop_size=CROP)
    _predict(tmp_path, predictor, tile_overlap=tile_overlap, soft_masks=True, geojson=True, coco=True, batch_size=5)
    out, true, row = tmp_path / "out", green >= 0.5 * 255, _read_row(tmp_path)
    assert set(predictor.shapes) == {(5, 64, 64, 3)}  # one program
    with Image.open(out / "masks/a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), 255 * true.astype(np.uint8))
    np.testing.assert_allclose(np.load(out / "soft_masks/a.npy"), green / 255, atol=1e-3)  # half precision
    areas = np.bincount(ndimage.label(true, np.ones((3, 3)))[0].ravel())[1:]
    areas = areas[areas >= 16]
    assert row["num_instances"] == len(areas) > 5 and areas.max() > 64**2
    assert row["foreground_share"] == pytest.approx(true.mean()) and row["num_tiles"] == len(
        np.concatenate([np.zeros(shape[0]) for shape in predictor.shapes])
    ) - (-row["num_tiles"] % 5)
    annotations = json.loads((out / "coco.json").read_text())["annotations"]
    assert [item["area"] for item in annotations] == areas.tolist()
    np.testing.assert_array_equal(_union(annotations, true.shape), _large(true))
    with Image.open(out / "overlays/a.png") as picture:
        assert picture.size == (420, 300)


def _union(annotations, shape):
    """The pixels of all annotations."""
    return np.any([coco_mask.decode(item["segmentation"]) for item in annotations] or [np.zeros(shape)], axis=0)


def _large(mask, minimum=16):
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return mask & (np.bincount(labels.ravel()) >= minimum)[labels]


def _read_polygons(tmp_path, stem="a"):
    features = json.loads((tmp_path / f"out/geojson/{stem}.geojson").read_text())["features"]
    return [([np.array(ring) for ring in item["geometry"]["coordinates"]], item["properties"]) for item in features]


def _shapes(tmp_path):
    return [shapely.Polygon(rings[0], rings[1:]) for rings, _ in _read_polygons(tmp_path)]


def test_polygons_are_those_of_the_whole_image(tmp_path, monkeypatch, green):
    """Not cut at tiles, nor at bands: the pixels of the mask, each once."""
    monkeypatch.setattr(resampling, "MAX_PIXELS", 420 * 37)
    _write(tmp_path / "in/a.tif", _colours(green))
    _predict(tmp_path, geojson=True)
    true, shapes, properties = _large(green >= 128), _shapes(tmp_path), [item for _, item in _read_polygons(tmp_path)]
    assert all(shape.is_valid for shape in shapes) and max(len(shape.interiors) for shape in shapes) > 1
    y, x = np.indices(true.shape) + 0.5
    np.testing.assert_array_equal(sum(shapely.contains_xy(shape, x, y).astype(int) for shape in shapes), true)
    labels, count = ndimage.label(true, np.ones((3, 3)))
    areas = np.zeros(count)
    for shape, item in zip(shapes, properties):
        measured = item["measurements"]
        assert measured["Area px"] == shape.area
        areas[int(measured["Region"]) - 1] += shape.area
        inside = labels == labels[true & shapely.contains_xy(shape, x, y)][0]
        assert measured["Mean score"] == pytest.approx(green[inside].mean() / 255, abs=1e-3)
    assert sorted(areas) == sorted(np.bincount(labels.ravel())[1:])


def test_regions_with_long_outlines_have_them_at_a_lower_resolution(tmp_path, monkeypatch, green):
    monkeypatch.setattr(region_files, "_MAX_CORNERS", 300)
    monkeypatch.setattr(resampling, "MAX_PIXELS", 420 * 11)
    _write(tmp_path / "in/a.tif", _colours(green))
    _predict(tmp_path, geojson=True, coco=True)
    shapes, true = _shapes(tmp_path), _large(green >= 128)
    assert all(shape.is_valid for shape in shapes)
    assert sum(shape.area for shape in shapes) == pytest.approx(true.sum(), rel=0.1)
    assert shapely.GeometryCollection(shapes).bounds == pytest.approx((0, 0, 420, 300), abs=8)
    assert shapely.box(0, 0, 420, 300).covers(shapely.MultiPoint(shapely.get_coordinates(shapes)))
    # Annotations stay exact.
    np.testing.assert_array_equal(
        _union(json.loads((tmp_path / "out/coco.json").read_text())["annotations"], true.shape), true
    )


def test_outputs_have_the_size_of_the_file(tmp_path, green):
    """The networks see half of the size; masks, polygons and annotations are those of the file."""
    _write(tmp_path / "in/a.tif", _colours(green))
    _predict(
        tmp_path, BrightPixels(crop_size=(32, 32), scale=0.5), tile_size=None, geojson=True, coco=True, soft_masks=True
    )
    true = green >= 128
    soft = np.load(tmp_path / "out/soft_masks/a.npy")
    assert soft.shape == (300, 420) and np.abs(soft - green / 255).mean() < 0.01
    with Image.open(tmp_path / "out/masks/a.png") as picture:
        assert picture.size == (420, 300) and np.mean((np.asarray(picture) > 0) != true) < 0.01
    annotations = json.loads((tmp_path / "out/coco.json").read_text())
    assert annotations["images"][0]["height"] == 300
    assert np.mean(_union(annotations["annotations"], true.shape) != true) < 0.03
    assert sum(item["area"] for item in annotations["annotations"]) == pytest.approx(true.sum(), rel=0.03)
    for item in annotations["annotations"]:
        (left, top, width, height), pixels = item["bbox"], _union([item], true.shape)
        y, x = np.nonzero(pixels)
        assert abs(x.min() - left) <= 1 and abs(y.min() - top) <= 1
        assert abs(np.ptp(x) + 1 - width) <= 2 and abs(np.ptp(y) + 1 - height) <= 2
    for polygon, properties in _read_polygons(tmp_path):
        assert properties["measurements"]["Area px"] == pytest.approx(
            shapely.Polygon(polygon[0], polygon[1:]).area, rel=0.01
        )
    assert sum(properties["measurements"]["Area px"] for _, properties in _read_polygons(tmp_path)) == pytest.approx(
        true.sum(), rel=0.03
    )


# Windows.


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_windows_are_parts_of_the_resized_image(green, scale):
    image = slides.from_pixels(_colours(green))
    seen = (round(300 * scale), round(420 * scale))
    source = sources.Source(None, image, None, 1.0, None, sources.Tiling(seen, 64), ())
    whole = Image.fromarray(_colours(green)).resize(seen[::-1], 4 if scale < 1 else 2)  # means, or bilinear
    for top, left in ((0, 0), (31, 50), (seen[0] - 64, seen[1] - 64)):
        window = large_images._read_window(source, None, (top, left, top + 64, left + 64))
        expected = np.asarray(whole)[top : top + 64, left : left + 64].astype(int)
        assert np.abs(window - expected).max() <= 1


def test_stains_are_those_of_the_whole_image(tmp_path):
    rng = np.random.default_rng(0)
    amounts = np.stack([rng.uniform(0.1, 1, (200, 300)), rng.uniform(0.1, 0.8, (200, 300))], axis=-1)
    vectors = np.array([[0.6, 0.7, 0.39], [0.1, 0.95, 0.3]])
    image = stains.from_optical_density(amounts @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    _write(tmp_path / "in/a.png", image)
    _predict(tmp_path, BrightPixels(crop_size=CROP, stain_normalization="macenko"), soft_masks=True)
    expected = stains.normalize_stains(image)[..., 1]
    assert np.abs(expected.astype(int) - image[..., 1]).mean() > 5
    np.testing.assert_allclose(np.load(tmp_path / "out/soft_masks/a.npy"), expected / 255, atol=1e-3)


# Class, and tiles without an object.


def test_confidence_by_hand():
    assert tile_scores.confidence(np.array([1.0, 0, 0])) == 1
    assert tile_scores.confidence(np.full(4, 0.25)) == pytest.approx(0)
    p = np.array([0.9, 0.1])
    expected = 1 + (0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    assert tile_scores.confidence(p) == pytest.approx(expected)
    assert tile_scores.fading(p) == 1  # entropy 0.47 of log 2
    p = np.array([0.8, 0.2])
    assert tile_scores.fading(p) == pytest.approx(2 * (1 + (0.8 * np.log2(0.8) + 0.2 * np.log2(0.2))))
    assert tile_scores.fading(np.full(2, 0.5)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("shares", "counts"), [([0, 0, 0, 0], (1, 3)), ([0.2, 0, 0.1, 0], (0.2, 0.1))])
def test_tiles_count_by_confidence_times_foreground(shares, counts):
    sure, unsure = np.array([0.98, 0.02]), np.array([0.4, 0.6])
    answers = [Prediction(sure, None, {"foreground_entropy": 0.1, "localizer_class": 0})]
    answers += 3 * [Prediction(unsure, None, {"foreground_entropy": 0.67, "localizer_class": 1})]
    probabilities, scores = tile_scores.combine(answers, shares, declared=minmax.SCORES)
    weights = [count * (1 + np.sum(p * np.log2(p))) for count, p in zip(counts, (sure, unsure))]
    share = weights[0] / sum(weights)
    np.testing.assert_allclose(probabilities, share * sure + (1 - share) * unsure)
    assert scores["foreground_entropy"] == pytest.approx(share * 0.1 + (1 - share) * 0.67)
    assert scores["localizer_class"] == 0


def test_tiles_without_confidence_count_alike():
    answers = [Prediction(np.full(2, 0.5), None, {"foreground_entropy": value}) for value in (0.2, 0.4)]
    probabilities, scores = tile_scores.combine(answers, [0.5, 0.5])
    np.testing.assert_allclose(probabilities, [0.5, 0.5])
    assert scores == {"foreground_entropy": pytest.approx(0.3)}


class _UnsureWithoutRed(BrightPixels):
    """Red in the middle of a tile is an object; without one, both classes are as probable."""

    def predict(self, images):
        answer = super().predict(images)
        has_object = answer.scores["localizer_class"][:, None].astype(bool)
        return answer.replace(probabilities=np.where(has_object, answer.probabilities, 0.5))


def test_masks_of_tiles_without_an_object_fade_out(tmp_path, green):
    image = _colours(np.full_like(green, 200))
    image[:, :150, 0] = 255
    _write(tmp_path / "in/a.png", image)
    _predict(tmp_path, _UnsureWithoutRed(crop_size=CROP), soft_masks=True, tile_overlap=0.5)
    soft, row = np.load(tmp_path / "out/soft_masks/a.npy"), _read_row(tmp_path)
    np.testing.assert_allclose(soft[:, :100], 200 / 255, atol=1e-3)
    np.testing.assert_allclose(soft[:, 220:], 0, atol=1e-3)
    assert row["class"] == "red" and row["probability"] == pytest.approx(0.9, abs=1e-4)


# A second stage, for the whole image.


def test_masks_of_a_second_stage_are_calibrated_by_the_whole_image(tmp_path, monkeypatch, green):
    monkeypatch.setattr(resampling, "MAX_PIXELS", 420 * 37)
    squeezed = (100 + green // 8).astype(np.uint8)
    _write(tmp_path / "in/a.tif", _colours(squeezed))
    predictor = _UnsureWithoutRed(crop_size=CROP)  # whose masks do not fade: they are those of the second stage
    predictor.calibrate_fn = calibration.between_percentiles
    _predict(tmp_path, predictor, soft_masks=True)
    expected = calibration.between_percentiles((squeezed / 255).astype(np.float32))
    np.testing.assert_allclose(np.load(tmp_path / "out/soft_masks/a.npy"), expected, atol=2e-3)


def test_a_sample_of_a_large_mask_tells_its_distribution(tmp_path, monkeypatch, green):
    monkeypatch.setattr(large_images, "_MAX_VALUES", 10_000)
    _write(tmp_path / "in/a.tif", _colours(green))
    predictor, samples = BrightPixels(crop_size=CROP), []
    predictor.calibrate_fn = lambda mask, of: samples.append(of) or mask
    _predict(tmp_path, predictor)
    assert 5000 < samples[0].size <= 10_000 and samples[0].mean() == pytest.approx(green.mean() / 255, abs=0.01)


# What may go wrong.


def test_files_of_a_large_image_are_deleted(tmp_path, monkeypatch, green):
    _write(tmp_path / "in/a.tif", _colours(green))
    write = image_outputs.write

    def look(output, *arguments, scratch, **named):
        assert list(scratch.iterdir())
        return write(output, *arguments, scratch=scratch, **named)

    monkeypatch.setattr(image_outputs, "write", look)
    _predict(tmp_path)
    assert not (tmp_path / "out/unfinished").exists()


def test_after_an_error_too_and_the_next_call_goes_on(tmp_path, monkeypatch, green):
    for name in "abc":
        _write(tmp_path / f"in/{name}.tif", _colours(green))
    with stopped_after(monkeypatch, 1) as written:
        _predict(tmp_path)
    assert not (tmp_path / "out/unfinished").exists()
    # A kill leaves them.
    (tmp_path / "out/unfinished").mkdir()
    (tmp_path / "out/unfinished/mask").write_bytes(b"1")
    predictor = BrightPixels(crop_size=CROP)
    assert _predict(tmp_path, predictor)["num_images"] == 3
    assert sum(shape[0] for shape in predictor.shapes) == 2 * -(-written[0]["num_tiles"] // 8) * 8
    assert not (tmp_path / "out/unfinished").exists()


def test_a_damaged_slide_is_skipped(tmp_path, green):
    _write(tmp_path / "in/a.tif", _colours(green))
    content = tiled_tiff.encode(_colours(green), compression=4711)
    (tmp_path / "in/b.tif").write_bytes(content)
    broken = bytearray(tiled_tiff.encode(_colours(green)))
    (tmp_path / "in/c.tif").write_bytes(broken[: len(broken) // 2])
    manifest = _predict(tmp_path)
    assert manifest["num_images"] == 1
    assert [pathlib.Path(item["path"]).name for item in manifest["skipped"]] == ["b.tif", "c.tif"]
    assert not (tmp_path / "out/unfinished").exists()


def test_without_space_the_prediction_ends(tmp_path, monkeypatch, green):
    """An intact image is not skipped."""
    _write(tmp_path / "in/a.tif", _colours(green))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"out lacks space: .*a.tif needs 1.2 MiB there .* and 0.0 MiB are free"):
        _predict(tmp_path)


def test_a_full_disk_ends_the_prediction(tmp_path, monkeypatch, green):
    _write(tmp_path / "in/a.tif", _colours(green))

    def fill(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(large_images.blending, "blend", fill)
    message = r"out cannot be written \(No space left on device; .* MiB are free, 1.2 MiB are needed\). Make room"
    with pytest.raises(UserError, match=message):
        _predict(tmp_path)
    assert not (tmp_path / "out/unfinished").exists()


def test_scratch_files_that_vanish_are_no_unreadable_image(tmp_path, monkeypatch, green):
    _write(tmp_path / "in/a.tif", _colours(green))
    blend = large_images.blending.blend

    def remove(*arguments):
        shutil.rmtree(tmp_path / "out/unfinished")
        blend(*arguments)

    monkeypatch.setattr(large_images.blending, "blend", remove)
    with pytest.raises(FileNotFoundError, match="unfinished/mask"):
        _predict(tmp_path)
    assert not (tmp_path / "out/manifest.json").exists()


def test_windows_that_cannot_be_read_are(tmp_path, monkeypatch, green):
    """Files that are lost while they are read, but not where this process has opened too many."""
    for name in "ab":
        _write(tmp_path / f"in/{name}.tif", _colours(green))
    open_image = slides.open_image

    def open_failing(path, error):
        image = open_image(path)
        return image if path.name == "b.tif" else dataclasses.replace(image, read=lambda *arguments: _raise(error))

    lost = OSError(5, "Input/output error")
    monkeypatch.setattr(sources.slides, "open_image", lambda path, reading: open_failing(path, lost))
    (skipped,) = _predict(tmp_path)["skipped"]
    assert skipped["path"].endswith("a.tif") and "Input/output error" in skipped["reason"]
    shutil.rmtree(tmp_path / "out")
    many = OSError(24, "Too many open files")
    monkeypatch.setattr(sources.slides, "open_image", lambda path, reading: open_failing(path, many))
    with pytest.raises(UserError, match="Too many open files"):
        _predict(tmp_path)


def _raise(error):
    raise error
