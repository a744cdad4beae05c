"""What large images need: arrays in files, tiles that become one mask, masks at other sizes, PNG files in bands."""

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
import pytest
from scipy import ndimage

from minmax_jax.prediction.large import banded_regions, blending, disk_arrays, resampling
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.outputs import coco, png, regions


def _on_disk(path, values):
    array = DiskArray(path, values.shape, values.dtype)
    array[0 : len(values)] = values
    return array


# Arrays in files.


@pytest.mark.parametrize("maximum", [1, 50, 1 << 26])
def test_windows_of_an_array_in_a_file(tmp_path, monkeypatch, maximum):
    monkeypatch.setattr(disk_arrays, "_MAX_BYTES", maximum)
    values = np.random.default_rng(0).integers(0, 99, (7, 5)).astype(np.int32)
    array = DiskArray(tmp_path / "a", (7, 5), np.int32)
    assert array.shape == (7, 5) and not array[0:7, :].any()
    array[2:5] = values[2:5]
    np.testing.assert_array_equal(array[3:7, 1:4], [*values[3:5, 1:4], [0] * 3, [0] * 3])
    np.testing.assert_array_equal(array[2:100, ::2], [*values[2:5, ::2], [0] * 3, [0] * 3])
    window = array[2:3, :]
    window[:] = -1  # a copy
    np.testing.assert_array_equal(array[2:3, :], values[2:3])


def test_one_value_is_written_to_all_of_the_rows(tmp_path):
    array = _on_disk(tmp_path / "a", np.ones((4, 3), np.float16))
    array[1:3] = 0
    np.testing.assert_array_equal(array[0:4, :], [[1] * 3, [0] * 3, [0] * 3, [1] * 3])
    with pytest.raises(ValueError, match="broadcast"):
        array[0:2] = np.zeros((3, 3), np.float16)


def test_half_precision_is_read_as_single(tmp_path):
    array = _on_disk(tmp_path / "a", np.full((2, 2), 0.1, np.float16))
    assert array[0:2, :].dtype == np.float32 and array[0:1, 0:1] == np.float32(np.float16(0.1))


# Tiles.


@pytest.mark.parametrize(
    ("size", "side", "overlap"), [((100, 230), 64, 0.25), ((64, 65), 64, 0.5), ((50, 40), 64, 0.25), ((96, 128), 32, 0)]
)
def test_tiles_cover_the_image_and_overlap(size, side, overlap):
    grid = blending.create_grid(size, side, overlap=overlap)
    height, width = grid.sides
    assert grid.sides == (min(side, size[0]), min(side, size[1]))
    for starts, length, total in ((grid.tops, height, size[0]), (grid.lefts, width, size[1])):
        assert starts[0] == 0 and starts[-1] + length == total
        # No fewer tiles would do: so many steps of the maximum length reach the end.
        assert len(starts) == 1 + -(-(total - length) // int(length * (1 - overlap)))
        assert all(0 < step <= np.ceil(length * (1 - overlap)) for step in np.diff(starts))
    assert len(grid.windows) == len(grid.tops) * len(grid.lefts)
    assert grid.windows[0] == (0, 0, height, width) and grid.windows[-1][2:] == size


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
def test_blending_changes_nothing_that_all_tiles_agree_on(overlap):
    values = np.random.default_rng(0).uniform(size=(101, 230))
    grid = blending.create_grid(values.shape, 32, overlap=overlap)
    out = np.zeros(values.shape)
    blending.blend(out, grid, (values[a:c, b:d] for a, b, c, d in grid.windows))
    np.testing.assert_allclose(out, values, atol=1e-6)


def test_blending_hides_seams():
    """Two tiles, of zeros and of ones: the mask rises by sin^2 shares, without a jump."""
    grid = blending.Grid((4, 12), (4, 8), (0,), (0, 4))
    out = np.zeros((4, 12))
    blending.blend(out, grid, [np.zeros((4, 8)), np.ones((4, 8))])
    window = [np.sin(np.pi * (x + 0.5) / 8) ** 2 for x in range(8)]
    shares = [window[x] / (window[x] + window[x + 4]) for x in range(4)]
    np.testing.assert_allclose(out, np.tile([0] * 4 + shares + [1] * 4, (4, 1)), atol=1e-6)
    assert np.abs(np.diff(out[0])).max() < 0.45


# Other sizes.


@pytest.mark.parametrize("size", [(40, 30), (80, 61), (13, 17), (40, 90), (1, 1)])
@pytest.mark.parametrize("maximum", [1, 200, 1 << 22])
def test_a_mask_at_another_size(tmp_path, monkeypatch, size, maximum):
    monkeypatch.setattr(resampling, "MAX_PIXELS", maximum)
    mask = np.random.default_rng(0).uniform(size=(40, 30)).astype(np.float32)
    places = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(size, mask.shape)]
    expected = ndimage.map_coordinates(mask, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    bands = list(resampling.resample(_on_disk(tmp_path / "mask", mask), size))
    assert len(bands) > 1 or maximum > 1 or size[0] == 1
    np.testing.assert_allclose(np.concatenate(bands), expected, atol=1e-6)


def test_one_row_and_one_column_are_repeated():
    np.testing.assert_array_equal(np.concatenate(list(resampling.resample(np.ones((1, 1)), (3, 2)))), np.ones((3, 2)))


# Regions.


@pytest.mark.parametrize("seed", range(6))
def test_regions_of_bands_are_those_of_the_whole(tmp_path, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.random((60, 45)), 1.2 * (seed % 3)).astype(np.float32)
    monkeypatch.setattr(resampling, "MAX_PIXELS", (1, 45, 400)[seed % 3])
    threshold = float(np.quantile(mask, 0.6))
    expected_labels, expected = regions.find(mask, threshold=threshold, min_area=1 + seed)
    labels = DiskArray(tmp_path / "labels", mask.shape, np.int32)
    found = banded_regions.find(_on_disk(tmp_path / "mask", mask), labels, threshold=threshold, min_area=1 + seed)
    np.testing.assert_array_equal(labels[0:60, :], expected_labels)
    assert len(found) == len(expected) > 3
    for region, other in zip(found, expected):
        assert region.box == other.box and region.area == other.area
        assert region.mean_value == pytest.approx(other.mean_value, abs=1e-6)
        assert region.centroid == pytest.approx(other.centroid, abs=1e-4)


def test_an_empty_mask_has_no_regions(tmp_path):
    labels = DiskArray(tmp_path / "labels", (5, 6), np.int32)
    assert banded_regions.find(_on_disk(tmp_path / "mask", np.zeros((5, 6))), labels, threshold=0.5) == []
    assert not labels[0:5, :].any()


# Files.


@pytest.mark.parametrize("maximum", [1, 60, 1 << 22])
@pytest.mark.parametrize("size", [(20, 14), (60, 42), (33, 29), (9, 5)])
def test_run_lengths_at_another_size(tmp_path, monkeypatch, size, maximum):
    monkeypatch.setattr(coco, "_MAX_PIXELS", maximum)
    labels = np.zeros((20, 14), np.int32)
    labels[:, 3:6] = 1  # the whole height: its runs go on from column to column
    labels[2:17, 8:13] = 2
    labels[5:7, 9:11] = 0
    old = [((np.arange(new) + 0.5) * side / new).astype(int) for new, side in zip(size, labels.shape)]
    expected = labels[np.ix_(*old)]
    on_disk = _on_disk(tmp_path / "labels", labels)
    for number, box in ((1, (0, 3, 20, 6)), (2, (2, 8, 17, 13))):
        annotation = coco.encode(on_disk, number, box, size=size)
        np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]), expected == number)
        assert annotation["area"] == np.sum(expected == number)
        assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()


def test_a_region_between_the_pixels_of_a_smaller_size_has_none():
    labels = np.zeros((9, 9), int)
    labels[0, 0] = 1
    found = coco.encode(labels, 1, (0, 0, 1, 1), size=(3, 3))
    assert found["area"] == 0 and not coco_mask.decode(found["segmentation"]).any()


def test_png_in_bands(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 40)).astype(np.uint8)
    png.write(tmp_path / "a.png", pixels.shape, [pixels[:1], pixels[1:30], pixels[30:]], microns=0.5)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "L" and picture.format == "PNG"
        assert picture.info["dpi"] == pytest.approx((50800, 50800))  # 25400 microns an inch
        np.testing.assert_array_equal(np.asarray(picture), pixels)
