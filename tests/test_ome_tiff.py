"""Soft masks as pyramids in OME-TIFF, as other programs read them."""

import itertools
import json
import uuid
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile

from minmax_jax.prediction import folder, inputs
from minmax_jax.prediction.large import resampling
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.outputs import image_outputs, ome_tiff
from tests import tiled_tiff
from tests.predictors import BrightPixels


@pytest.fixture
def mask():
    y, x = np.indices((700, 1301))
    return (np.sin(y / 50) * np.cos(x / 70) / 2 + 0.5).astype(np.float32)


def _halved(values):
    padded = np.pad(values.astype(float), [(0, side % 2) for side in values.shape], mode="edge")
    return (padded[0::2, 0::2] + padded[1::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 1::2]) / 4


@pytest.mark.parametrize("on_disk", [False, True])
def test_levels_and_pixel_size(tmp_path, monkeypatch, mask, on_disk):
    monkeypatch.setattr(resampling, "MAX_PIXELS", 1301 * 40)
    stored = mask
    if on_disk:
        stored = DiskArray(tmp_path / "mask", mask.shape, np.float32)
        stored[0 : len(mask)] = mask
    ome_tiff.write(tmp_path / "a.ome.tif", stored, microns=(0.5, 0.25), scratch=tmp_path)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        (series,) = file.series
        assert file.is_ome and series.axes == "YX" and not file.is_bigtiff
        assert [level.shape for level in series.levels] == [(700, 1301), (350, 651), (175, 326)]
        levels = [level.asarray() for level in series.levels]
        first = file.pages[0]
        assert first.is_tiled and first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE and first.bitspersample == 8
        assert first.get_resolution("MICROMETER") == pytest.approx((2, 4))
        assert series.levels[1].pages[0].get_resolution("MICROMETER") == pytest.approx((2 * 651 / 1301, 2))
        root = ElementTree.fromstring(file.ome_metadata)
    np.testing.assert_array_equal(levels[0], np.rint(255 * mask))
    for fine, coarse in itertools.pairwise(levels):
        assert np.abs(coarse - _halved(fine)).max() <= 0.5
    (pixels,) = root.iter("{http://www.openmicroscopy.org/Schemas/OME/2016-06}Pixels")
    assert (float(pixels.get("PhysicalSizeX")), float(pixels.get("PhysicalSizeY"))) == (0.5, 0.25)
    assert pixels.get("PhysicalSizeXUnit") == "µm" and pixels.get("Type") == "uint8"
    with openslide.OpenSlide(tmp_path / "a.ome.tif") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff" and slide.dimensions == (1301, 700)
        np.testing.assert_array_equal(np.asarray(slide.read_region((0, 0), 0, (1301, 700)))[..., 0], levels[0])


def test_one_mask_is_one_file_and_says_nothing_of_the_machine(tmp_path, mask):
    """Bytes are equal at any time; uuid1, which tifffile takes by default, holds time and network address."""
    contents = []
    for folder_name, values in (("first", mask), ("again", mask.copy()), ("other", 1 - mask)):
        (tmp_path / folder_name).mkdir()
        ome_tiff.write(tmp_path / folder_name / "a.ome.tif", values, microns=None, scratch=tmp_path)
        contents.append((tmp_path / folder_name / "a.ome.tif").read_bytes())
    assert contents[0] == contents[1]
    identifiers = []
    for folder_name in ("first", "other"):
        with tifffile.TiffFile(tmp_path / folder_name / "a.ome.tif") as file:
            identifiers.append(uuid.UUID(ElementTree.fromstring(file.ome_metadata).get("UUID")))
    assert identifiers[0] != identifiers[1] and {identifier.version for identifier in identifiers} == {5}


def test_without_pixel_size_nothing_is_said_of_it(tmp_path):
    ome_tiff.write(tmp_path / "a.ome.tif", np.full((3, 5), 0.5, np.float32), microns=None, scratch=tmp_path)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert "PhysicalSize" not in file.ome_metadata
        np.testing.assert_array_equal(file.asarray(), np.full((3, 5), 128))  # at the threshold 0.5: 128 of 255


def test_large_files_have_long_offsets(tmp_path, monkeypatch, mask):
    monkeypatch.setattr(ome_tiff, "_MAX_CLASSIC", 1000)
    ome_tiff.write(tmp_path / "a.ome.tif", mask, microns=None, scratch=tmp_path)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_bigtiff and len(file.series[0].levels) == 3


@pytest.mark.parametrize(("tile_size", "scale"), [(None, 1.0), (128, 1.0), (128, 0.5)])
def test_of_a_prediction(tmp_path, tile_size, scale):
    """Of the size of the mask; where the networks see half of the image, its pixels are twice as large."""
    image = np.zeros((200, 300, 3), np.uint8)
    image[40:160, 60:250, 1] = 230
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(tiled_tiff.encode(image))
    options = folder.Options(soft_masks="ome-tiff", tile_size=tile_size, microns_per_pixel=0.5)
    predictor, found = BrightPixels(scale=scale), inputs.find([str(tmp_path / "in")])
    folder.predict(predictor, found, tmp_path / "out", options, model={}, results={})
    (path,) = (tmp_path / "out/soft_masks").iterdir()
    assert path == tmp_path / "out" / image_outputs.files("a", options)["soft_mask"] and path.name == "a.ome.tif"
    with tifffile.TiffFile(path) as file:
        values = file.asarray()
        assert f'PhysicalSizeX="{0.5 / scale}"' in file.ome_metadata
    assert values.shape == (200 * scale, 300 * scale)
    assert np.median(values[values > 0]) == 230 and (values > 0).mean() == pytest.approx(120 * 190 / 60000, rel=0.05)
    row = json.loads((tmp_path / "out/predictions.jsonl").read_text())
    assert row["microns_per_pixel"] == 0.5
    assert not (tmp_path / "out/unfinished").exists()
