"""Slides of different magnification: brought to one pixel size, or said; what is recorded goes to the model card."""

import json

from minmax_jax.configs import common
import numpy as np
from PIL import Image
import pytest

from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.data import image_files, load
from minmax_jax.data.importing import image_folder, magnification, mask_rules, raw_dataset, records, summary, tiles
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.folder import model_card
from tests import encoded, saved_models

STAIN = (170, 90, 160)
FINE, COARSE = 0.25, 0.5  # microns a pixel


def _write_slide(root, name, microns, *, seed=0, side=64, mask=False):
    """A slide of 32 microns for 64 pixels of 0.5: the same blocks of 8 microns at any pixel size."""
    blocks = np.random.default_rng(seed).integers(0, 2, (4, 4))
    factor = round(side * COARSE / microns) // 4
    pixels = np.where(np.kron(blocks, np.ones((factor, factor)))[..., None] > 0, STAIN, (60, 0, 60)).astype(np.uint8)
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, pixels, 1e4 / microns)
    if mask:
        path.with_suffix(".png").write_bytes(encoded.encode((pixels[..., 1] == 90).astype(np.uint8)))
    return pixels


def _save(path, pixels, per_centimetre):
    Image.fromarray(pixels).save(path, tiffinfo={282: per_centimetre, 283: per_centimetre, 296: 3})


def _resave(path, per_centimetre):
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    _save(path, pixels, per_centimetre) if per_centimetre else Image.fromarray(pixels).save(path)


def _raw(root, sizes, *, masks=False):
    """Classes a and b; a file each for these pixel sizes, by name."""
    items = []
    for k, (name, microns) in enumerate(sizes.items()):
        _write_slide(root, name, microns or COARSE, seed=k, mask=masks)
        if microns is None:
            _resave(root / name, None)
        mask = (root / name).with_suffix(".png") if masks else None
        items.append(raw_dataset.Item(name, name[0], root / name, mask))
    splits = {"train": items, "validation": items[:1], "test": items[:1]}
    return raw_dataset.RawDataset(("a", "b"), splits, mask_rules.above(0), description="Slides.")


def _tiles(raw, tiling):
    cut = tiles.cut(raw, tiling)
    return cut, {item.name: list(cut.read_records(item, cut)) for item in cut.splits["train"]}


def test_all_slides_come_to_one_pixel_size(tmp_path, caplog):
    """At 0.5 microns both are 64 x 64 pixels and one tile of 32 microns; the fine one has means of 2 x 2."""
    sizes = {"a.tif": COARSE, "b.tif": FINE}
    cut, found = _tiles(_raw(tmp_path, sizes, masks=True), tiles.Tiling(64, microns=32))
    assert cut.microns_per_pixel == 0.5 and not caplog.records
    for seed, name in enumerate(sizes):
        (record,) = found[name]
        expected = _write_slide(tmp_path, "expected.tif", COARSE, seed=seed)
        assert record["name"] == f"{name}/0_0" and tuple(record["size"]) == (64, 64)
        np.testing.assert_array_equal(image_files.read_rgb(record["image"], name), expected)
        mask = np.asarray(image_files.open_picture(record["mask"], name))
        np.testing.assert_array_equal(mask, expected[..., 1] == 90)


def test_coarse_slides_are_enlarged_and_named(tmp_path, caplog):
    raw = _raw(tmp_path, {"a.tif": COARSE, "b.tif": FINE}, masks=True)
    cut, found = _tiles(raw, tiles.Tiling(64, microns=16))
    assert cut.microns_per_pixel == 0.25
    assert "1 of 2 slides are enlarged, such as" in caplog.text and "a.tif from 0.5 to 0.25 microns" in caplog.text
    assert "tile_microns=32 would enlarge none" in caplog.text
    assert [record["name"] for record in found["b.tif"]] == [f"b.tif/{y}_{x}" for y in (0, 64) for x in (0, 64)]
    # In pixels of the file; a tile covers 32 of them, twice as large, in its middle equal to the blocks.
    assert [record["name"] for record in found["a.tif"]] == [f"a.tif/{y}_{x}" for y in (0, 32) for x in (0, 32)]
    with Image.open(tmp_path / "a.tif") as picture:
        pixels = np.asarray(picture)
    tile = image_files.read_rgb(found["a.tif"][3]["image"], "a")
    np.testing.assert_array_equal(tile[16::32, 16::32], pixels[40::16, 40::16])
    mask = np.asarray(image_files.open_picture(found["a.tif"][3]["mask"], "a"))
    np.testing.assert_array_equal(mask, np.kron(pixels[32:, 32:, 1] == 90, np.ones((2, 2))))


def test_slides_without_a_size_are_refused_by_name(tmp_path):
    raw = _raw(tmp_path, {"a.tif": None, "b.tif": FINE})
    with pytest.raises(UserError, match=r"(?s)3 problems.*a.tif does not say .* Give it by microns_per_pixel"):
        tiles.cut(raw, tiles.Tiling(64, microns=32))
    left = tiles.cut(raw, tiles.Tiling(64, microns=32), skip_bad=True)
    assert [item.name for item in left.splits["train"]] == ["b.tif"]
    assert {problem.split for problem in left.bad} == {"train", "validation", "test"}
    sizes = magnification.read(raw, given=COARSE)
    assert sizes[tmp_path / "a.tif"] == COARSE and sizes[tmp_path / "b.tif"] == pytest.approx(FINE)
    assert not tiles.cut(raw, tiles.Tiling(64, microns=32), sizes=sizes).bad


def test_what_a_file_says_counts_before_what_is_given(tmp_path, caplog):
    sizes = magnification.read(_raw(tmp_path, {"a.tif": COARSE, "b.tif": FINE}), given=COARSE)
    assert list(sizes.values()) == pytest.approx([COARSE, FINE])
    assert "microns_per_pixel=0.5 is for files that do not say it; 1 of 2 do and have another size" in caplog.text


def test_slides_cut_alike_are_counted(tmp_path, caplog):
    raw = _raw(tmp_path, {"a1.tif": FINE, "a2.tif": FINE * 1.04, "b1.tif": COARSE, "b2.tif": FINE, "b3.tif": COARSE})
    cut = tiles.cut(raw, tiles.Tiling(64))
    (record,) = caplog.records
    assert "3 slides of 0.25 and 2 slides of 0.5 microns a pixel" in record.getMessage()
    assert "tile_microns=32 brings all to 0.5 microns a pixel" in record.getMessage()
    assert cut.microns_per_pixel == 0


def test_a_size_that_all_have_is_recorded(tmp_path, caplog):
    raw = _raw(tmp_path, {"a1.tif": FINE, "a2.tif": FINE * 1.04, "b.tif": FINE})
    assert tiles.cut(raw, tiles.Tiling(64)).microns_per_pixel == pytest.approx(0.25)
    assert tiles.cut(raw, tiles.Tiling(64, scale=0.5)).microns_per_pixel == pytest.approx(0.5)
    assert magnification.record(raw, magnification.read(raw)).microns_per_pixel == pytest.approx(0.25)
    assert not caplog.records
    unknown = _raw(tmp_path / "other", {"a.tif": FINE, "b.tif": None})
    assert magnification.record(unknown, magnification.read(unknown)).microns_per_pixel == 0
    assert "1 of 2 images do not say how many microns a pixel has" in caplog.text


def test_images_that_differ_and_sizes_that_are_ignored(tmp_path, caplog):
    raw = _raw(tmp_path, {"a.tif": FINE, "b.tif": COARSE})
    assert magnification.record(raw, magnification.read(raw)).microns_per_pixel == 0
    assert "1 image of 0.25 and 1 image of 0.5 microns a pixel" in caplog.text
    caplog.clear()
    for name in ("a.tif", "b.tif"):
        _resave(tmp_path / name, 10.0)
    assert set(magnification.read(raw).values()) == {None}
    assert "The pixel size of 2 of 2 images is ignored, such as 1000 microns in" in caplog.text
    caplog.clear()
    assert set(magnification.read(raw, given=0.5).values()) == {0.5} and not caplog.records


@pytest.mark.parametrize(
    ("configured", "prepared", "expected"), [(0, 0.5, 0.5), (0.3, 0.5, 0.3), (0.3, 0, 0.3), (0, 0, 0)]
)
def test_the_configuration_counts_before_the_data(configured, prepared, expected):
    config = saved_models.create_config(data__microns_per_pixel=float(configured))
    card = model_card.describe(
        options_lib.read(config),
        steps_per_epoch=1,
        class_names=("a", "b"),
        crop_size=(32, 32),
        train_labels=np.arange(4) % 2,
        step=1,
        state_digest="",
        microns_per_pixel=prepared,
    )
    assert card["microns_per_pixel"] == expected


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        ({"microns": 32, "scale": 0.5}, "tile_scale=0.5 and tile_microns=32"),
        ({"microns": -1}, "tile_microns / tile_size=-0.015625 must be from 0.001"),
        ({"microns": 1e6}, "tile_microns / tile_size=15625 must be"),
    ],
)
def test_options_that_do_not_fit(tmp_path, tiling, message):
    with pytest.raises(OptionError, match=message):
        tiles.cut(_raw(tmp_path, {"a.tif": FINE, "b.tif": FINE}), tiles.Tiling(64, **tiling))
    with pytest.raises(OptionError, match="microns_per_pixel=5000 must be from 0.001 to 1000"):
        magnification.read(_raw(tmp_path, {"a.tif": FINE}), given=5000)


def test_from_files_to_the_splits_of_a_run(tmp_path, caplog):
    for number, name in enumerate("ab"):
        for k in range(3):
            microns = FINE if k else COARSE
            _write_slide(tmp_path / "images", f"{name}/{k}.tif", microns, seed=10 * number + k)
    raw = image_folder.read_raw(str(tmp_path / "images"), mask_rule=mask_rules.above(0))
    written = records.prepare("slides", lambda _: tiles.cut(raw, tiles.Tiling(64, microns=32)), tmp_path / "out").folder
    assert json.loads((written / "metadata.json").read_text()) == {"microns_per_pixel": 0.5}
    splits = load.load(str(tmp_path / "out"), "slides")
    assert {part.microns_per_pixel for part in splits.values()} == {0.5}
    assert "\n0.5 microns a pixel." in summary.describe(str(tmp_path / "out"), "slides")
    config = common.get_config()
    config.data.update(dataset="custom", name="slides", dir=str(tmp_path / "out"), scale=0.5, microns_per_pixel=2.0)
    assert (
        data_splits.create_splits(options_lib.read(config).data)["train"].microns_per_pixel == 0.5
    )  # as prepared, before data.scale
    assert "config.data.microns_per_pixel=2, but the prepared images have 0.5" in caplog.text
    (written / "metadata.json").write_text("[]")
    with pytest.raises(UserError, match="damaged .*metadata.json"):
        load.load(str(tmp_path / "out"), "slides")
