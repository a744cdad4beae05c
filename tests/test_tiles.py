"""Images too large to hold: tiles of slides and of other images, their masks and boxes, compared with slices."""

import pathlib
import re
import sys

import numpy as np
from PIL import ExifTags, Image
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.data import dataset, image_files, load, slide_windows, slides
from minmax_jax.data.importing import image_folder, mask_rules, raw_dataset, record_files, records, slide_masks, tiles
from tests import encoded, programs, tiled_tiff

STAIN, GLASS = (170, 90, 160), (242, 240, 243)
SIZE = (150, 200)
# By hand: 150 and 200 pixels in tiles of 64, the last shifted inwards.
TOPS, LEFTS = (0, 64, 86), (0, 64, 128, 136)


def _pixels(seed=0, size=SIZE):
    """Noise in steps of 4, whose means over 2x2 pixels are whole."""
    return np.random.default_rng(seed).integers(0, 64, (*size, 3), np.uint8) * 4


def _values(size=SIZE):
    """Values 0 to 3 in blocks of 7x5 pixels."""
    rows, columns = np.indices(size)
    return ((rows // 7 + columns // 5) % 4).astype(np.uint8)


def _write(root, files):
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def _read(folder, image, mask=None, boxes=(), rule=">0", **tiling):
    """The records of an image's tiles, decoded, by name."""
    _write(folder, {"image": image} | ({"mask": mask} if mask else {}))
    item = raw_dataset.Item("a/1.svs", "a", folder / "image", folder / "mask" if mask else None, boxes)
    found = raw_dataset.RawDataset(("a",), {"train": [item]}, mask_rules.parse(rule), description="")
    tiling = tiles.Tiling(**{"side": 64, "min_tissue": 0.0} | tiling)
    read = list(tiles.read_records(item, found, tiling=tiling))
    for record in read:
        record["image"] = image_files.read_rgb(record["image"], "tile")
        record["mask"] = np.asarray(image_files.open_picture(record["mask"], "mask")) if record["mask"] else None
        assert record["label"] == "a" and tuple(record["size"]) == record["image"].shape[:2]
    return {record["name"].removeprefix("a/1.svs/"): record for record in read}


@pytest.mark.parametrize("mask_kind", ["slide", "png"])
@pytest.mark.parametrize("image_kind", ["slide", "png"])
def test_tiles_are_slices(tmp_path, image_kind, mask_kind):
    encode = {"slide": tiled_tiff.encode, "png": encoded.encode}
    pixels, values = _pixels(), _values()
    found = _read(tmp_path, encode[image_kind](pixels), encode[mask_kind](values), rule="1,3")
    assert list(found) == [f"{top}_{left}" for top in TOPS for left in LEFTS]
    for top in TOPS:
        for left in LEFTS:
            window = np.s_[top : top + 64, left : left + 64]
            np.testing.assert_array_equal(found[f"{top}_{left}"]["image"], pixels[window])
            np.testing.assert_array_equal(found[f"{top}_{left}"]["mask"], np.isin(values[window], [1, 3]))
            assert found[f"{top}_{left}"]["boxes"].shape == (0, 4)


@pytest.mark.parametrize(
    "size, side, expected",
    [
        ((64, 128), 64, [(0, 0, 64, 64), (0, 64, 64, 128)]),
        ((65, 64), 64, [(0, 0, 64, 64), (1, 0, 65, 64)]),
        ((40, 50), 64, [(0, 0, 40, 50)]),
        ((40, 70), 64, [(0, 0, 40, 64), (0, 6, 40, 70)]),
    ],
)
def test_grids(size, side, expected):
    assert tiles.grid(size, side) == expected


@pytest.mark.parametrize("encode", [tiled_tiff.encode, encoded.encode])
def test_an_image_smaller_than_a_tile_is_one_of_its_own_size(tmp_path, encode):
    pixels = _pixels(size=(40, 50))
    found = _read(tmp_path, encode(pixels), encoded.encode(_values((40, 50)) > 0), boxes=((-5, 10, 20, 60),))
    assert list(found) == ["0_0"]
    np.testing.assert_array_equal(found["0_0"]["image"], pixels)
    np.testing.assert_array_equal(found["0_0"]["mask"], _values((40, 50)) > 0)
    np.testing.assert_allclose(found["0_0"]["boxes"], [[0, 10 / 50, 20 / 40, 1]])


def test_the_level_that_is_near_the_scale_is_read(tmp_path):
    """Levels of unlike content tell which of them was read; 301 and 75 rows make a downsample of 4.01."""
    full, quarter = _pixels(0, (301, 400)), _pixels(1, (75, 100))
    found = _read(tmp_path, tiled_tiff.encode(full, quarter), tiled_tiff.encode(_values((301, 400))), scale=0.25)
    assert list(found) == ["0_0", "0_144", "44_0", "44_144"]
    whole = slides.open_image(tmp_path / "image").read((0, 0, 300, 400), (75, 100))
    assert np.abs(whole.astype(int) - quarter).mean() < 10 < np.abs(_pixels(2, (75, 100)).astype(int) - quarter).mean()
    # At half resolution there is only the first level.
    found = _read(tmp_path, tiled_tiff.encode(full, quarter), tiled_tiff.encode(_values((301, 400))), scale=0.5)
    means = full[:300].reshape(150, 2, 200, 2, 3).mean(axis=(1, 3))
    nearest = _values((301, 400))[1::2, 1::2]
    assert list(found) == [f"{2 * top}_{2 * left}" for top in TOPS for left in LEFTS]
    for top in TOPS:
        for left in LEFTS:
            window = np.s_[top : top + 64, left : left + 64]
            np.testing.assert_array_equal(found[f"{2 * top}_{2 * left}"]["image"], means[window])
            np.testing.assert_array_equal(found[f"{2 * top}_{2 * left}"]["mask"], nearest[window] > 0)


def test_a_level_is_read_as_it_is(tmp_path):
    full, half = _pixels(0, (300, 400)), _pixels(1, SIZE)
    found = _read(tmp_path, tiled_tiff.encode(full, half), scale=0.5)
    for name, record in found.items():
        top, left = (int(number) // 2 for number in name.split("_"))
        np.testing.assert_array_equal(record["image"], half[top : top + 64, left : left + 64])


def test_other_images_are_scaled_alike(tmp_path):
    full = _pixels(0, (128, 128))
    found = _read(tmp_path, encoded.encode(full), encoded.encode(_values((128, 128))), scale=0.5)
    np.testing.assert_array_equal(found["0_0"]["image"], full.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3)))
    np.testing.assert_array_equal(found["0_0"]["mask"], _values((128, 128))[1::2, 1::2] > 0)


def test_bands_make_no_difference(tmp_path, monkeypatch):
    image = tiled_tiff.encode(_pixels(0, (300, 400)))
    whole = _read(tmp_path, image, tiled_tiff.encode(_values((300, 400))), scale=0.5)
    sizes = []
    monkeypatch.setattr(slide_windows, "_MAX_PIXELS", 128 * 20)
    monkeypatch.setattr(Image.Image, "resize", _recording(Image.Image.resize, sizes))
    banded = _read(tmp_path, image, tiled_tiff.encode(_values((300, 400))), scale=0.5)
    assert whole.keys() == banded.keys()
    for name in whole:
        np.testing.assert_array_equal(banded[name]["image"], whole[name]["image"])
        np.testing.assert_array_equal(banded[name]["mask"], whole[name]["mask"])
    # 7 bands of 9 or 10 rows, twice as many in the file.
    assert max(height for _, height in sizes) == 20 and len(sizes) == 12 * 2 * 7


def _recording(function, sizes):
    def resize(picture, *arguments):
        if picture.mode == "RGBA":  # what OpenSlide returns; Pillow changes it and calls itself
            sizes.append(picture.size)
        return function(picture, *arguments)

    return resize


@pytest.mark.parametrize("encode", [tiled_tiff.encode, encoded.encode])
def test_masks_may_be_coarser(tmp_path, encode):
    """One pixel of the mask for 4x4 of the image; 150 rows are 37.5."""
    values = _values((38, 50))
    found = _read(tmp_path, tiled_tiff.encode(_pixels()), encode(values))
    rows = np.floor((np.arange(150) + 0.5) * 38 / 150).astype(int)
    columns = np.floor((np.arange(200) + 0.5) / 4).astype(int)
    expected = values[rows][:, columns] > 0
    for name, record in found.items():
        top, left = map(int, name.split("_"))
        np.testing.assert_array_equal(record["mask"], expected[top : top + 64, left : left + 64])


def test_what_a_slide_lacks_is_glass_and_background(tmp_path):
    full = np.full((64, 192, 3), STAIN, np.uint8)
    mask = np.full((64, 192), 1, np.uint8)
    found = _read(tmp_path, tiled_tiff.encode(full, missing=1), tiled_tiff.encode(mask, missing=0))
    assert (found["0_0"]["image"] == STAIN).all() and (found["0_64"]["image"] == 255).all()
    assert not found["0_0"]["mask"].any() and found["0_64"]["mask"].all()


def test_boxes_are_cut_and_what_is_hardly_visible_is_dropped(tmp_path):
    boxes = (
        (10, 20, 30, 40),  # in the first tile
        (20, 48, 40, 80),  # half in each of two tiles
        (0, 100, 16, 200),  # 28 of 100 columns in the second tile, 64 in the third and the last
        (0, 60, 64, 168),  # 4 of 108 columns in the first
        (30, 127, 50, 129),  # half in each, one column
    )
    found = _read(tmp_path, tiled_tiff.encode(_pixels(size=(64, 192))), boxes=boxes)
    expected = {
        "0_0": [(10, 20, 30, 40), (20, 48, 40, 64)],
        "0_64": [(20, 0, 40, 16), (0, 36, 16, 64), (0, 0, 64, 64), (30, 63, 50, 64)],
        "0_128": [(0, 0, 16, 64), (0, 0, 64, 40), (30, 0, 50, 1)],
    }
    for name, record in found.items():
        assert record["boxes"].dtype == np.float32
        np.testing.assert_allclose(record["boxes"], np.array(expected[name]) / 64)


def test_a_small_part_of_a_box_counts_where_it_fills_the_tile():
    boxes = np.array([[0, 0, 1000, 1000], [47, 0, 1000, 1000], [49, 0, 1000, 1000.0]])
    np.testing.assert_allclose(tiles.cut_boxes(boxes, (0, 0, 64, 64)), [[0, 0, 1, 1], [47 / 64, 0, 1, 1]])


@pytest.mark.parametrize("tag", [3, 6])
@pytest.mark.parametrize("encode", [tiled_tiff.encode, encoded.encode])
def test_image_mask_and_boxes_are_turned_alike(tmp_path, encode, tag):
    pixels, values = _pixels(), _values()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    # Of the stored image of 150x200 pixels, the upper left corner.
    found = _read(tmp_path, encoded.encode(pixels, exif=exif), encode(values), boxes=((0, 0, 20, 30),))
    turns = {3: 2, 6: -1}[tag]
    expected = np.rot90(pixels, turns), np.rot90(values, turns) > 0
    for name, record in found.items():
        top, left = map(int, name.split("_"))
        np.testing.assert_array_equal(record["image"], expected[0][top : top + 64, left : left + 64])
        np.testing.assert_array_equal(record["mask"], expected[1][top : top + 64, left : left + 64])
    corner, box = {3: ("86_136", (44, 34, 64, 64)), 6: ("0_86", (0, 44, 30, 64))}[tag]
    np.testing.assert_allclose(found[corner]["boxes"], np.array([box]) / 64)


@pytest.mark.parametrize(
    "color, tissue",
    [
        (STAIN, True),
        ((120, 100, 200), True),  # haematoxylin
        (GLASS, False),
        ((255, 255, 255), False),
        ((0, 0, 0), False),
        ((90, 90, 90), False),
        ((100, 92, 100), True),  # 8 of 100
        ((100, 94, 100), False),
    ],
)
def test_tissue_has_a_colour(color, tissue):
    assert tiles.tissue_share(np.full((2, 2, 3), color, np.uint8)) == tissue


@pytest.mark.parametrize("encode", [tiled_tiff.encode, encoded.encode])
def test_tiles_without_tissue_are_left_out(tmp_path, encode):
    pixels = np.full((128, 128, 3), GLASS, np.uint8)
    pixels[:64, 64:] = STAIN
    pixels[64:80, :64] = STAIN  # a quarter of its tile
    pixels[64:70, 64:] = STAIN  # 6 of 64 rows
    assert tiles.tissue_share(pixels) == (64 + 16 + 6) / 256
    for minimum, expected in (
        (0.0, ["0_0", "0_64", "64_0", "64_64"]),
        (0.05, ["0_64", "64_0", "64_64"]),
        (0.1, ["0_64", "64_0"]),
        (0.25, ["0_64", "64_0"]),
        (1.0, ["0_64"]),
    ):
        assert list(_read(tmp_path, encode(pixels), min_tissue=minimum)) == expected
    pixels[:] = GLASS
    with pytest.raises(UserError, match="image: none of its 4 tiles has tissue on 10% of .* Lower min_ti"):
        _read(tmp_path, encode(pixels), min_tissue=0.1)


def _release(**counts):
    items = {
        split: [raw_dataset.Item(f"{split}/{name}/{i}", name, pathlib.Path("x")) for name in "ab" for i in range(count)]
        for split, count in counts.items()
    }
    return raw_dataset.RawDataset(("a", "b"), items, mask_rules.above(0), description="Slides.")


def test_images_validate_and_not_tiles():
    found = tiles.cut(_release(train=10, test=3), tiles.Tiling(64), seed=1)
    assert list(found.splits) == ["train", "validation", "test"]
    train, validation = ({item.name for item in found.splits[split]} for split in ("train", "validation"))
    assert not train & validation and train | validation == {f"train/{name}/{i}" for name in "ab" for i in range(10)}
    assert sorted(item.class_name for item in found.splits["validation"]) == list("aabb")
    assert "Slides. Cut: Tiling(side=64, scale=1.0, min_tissue=0.1, microns=0.0)." == found.description
    again, other = (tiles.cut(_release(train=10, test=3), tiles.Tiling(64), seed=seed) for seed in (1, 2))
    assert again.splits == found.splits != other.splits


def test_validation_images_that_are_given_stay():
    given = _release(train=1, validation=1, test=1)
    assert tiles.cut(given, tiles.Tiling(64)).splits == given.splits
    with pytest.raises(UserError, match="The class 'a' has one training image, and one .* must validate"):
        tiles.cut(_release(train=1, test=1), tiles.Tiling(64))


@pytest.mark.parametrize(
    "tiling, message",
    [
        ({"side": 31}, "tile_size=31 must be 0 or at least 32 pixels"),
        ({"scale": 0.0}, "tile_scale=0.0 must be above 0 and at most 1"),
        ({"scale": 1.5}, "tile_scale=1.5 must be above 0"),
        ({"min_tissue": -0.1}, "min_tissue=-0.1 must be from 0"),
        ({"min_tissue": 10.0}, "min_tissue=10.0 must be from 0"),
    ],
)
def test_tilings_that_cannot_be(tiling, message):
    with pytest.raises(ValueError, match=message):
        tiles.cut(_release(train=2, test=1), tiles.Tiling(**{"side": 64} | tiling))


@pytest.mark.parametrize(
    "image, mask, options, message",
    [
        ({}, None, {"scale": 0.2}, r"image has \(30, 40\) pixels .* at tile_scale=0.2; each side needs at least 32"),
        # Bytes that are no deflate stream, a compression that OpenSlide does not know, and a JPEG's values.
        ({"compression": 8}, None, {}, r"image is damaged at \(0.0, 0.0, 64.0, 64.0\) .* Replace it by an intact copy"),
        (
            {"compression": 4711},
            None,
            {},
            r"image cannot be read: its compression \(number 4711\) is not supp",
        ),
        ({}, tiled_tiff.encode(_values(), compression=7), {}, "mask is a JPEG, whose values are blurred"),
        ({}, encoded.encode(_values(), "TIFF", compression="jpeg"), {}, "mask is a JPEG, whose values are blurred"),
        ({}, tiled_tiff.encode(_values((150, 190))), {}, r"mask has \(150, 190\) .* image \(150, 200\): the shapes"),
        ({}, encoded.encode(_values((76, 97))), {}, r"mask has \(76, 97\) .* the shapes differ"),
        ({}, tiled_tiff.encode(np.zeros((*SIZE, 5), np.uint8)), {}, "mask is no mask .* Save it with one channel of 8"),
        ({}, b"no image", {}, "mask cannot be read as an image"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, image, mask, options, message):
    with pytest.raises(UserError, match=message):
        _read(tmp_path, tiled_tiff.encode(_pixels(), **image), mask, **options)


def test_files_that_are_missing(tmp_path):
    with pytest.raises(UserError, match="nowhere.svs is missing"):
        slides.open_image(tmp_path / "nowhere.svs")
    _write(tmp_path, {"image": tiled_tiff.encode(_pixels())})
    with pytest.raises(UserError, match="nowhere.png is missing"):
        slide_masks.open_mask(tmp_path / "nowhere.png", slides.open_image(tmp_path / "image"), rule=mask_rules.above(0))


def test_without_openslide_pillow_reads_what_it_can(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    found = _read(tmp_path, tiled_tiff.encode(_pixels()), tiled_tiff.encode(_values()))
    np.testing.assert_array_equal(found["0_64"]["image"], _pixels()[:64, 64:128])
    np.testing.assert_array_equal(found["0_64"]["mask"], _values()[:64, 64:128] > 0)
    with pytest.raises(
        dataset.DataError, match=r"cannot be read .* If it is a slide, run: pip install -e '.\[slides\]'"
    ):
        _read(tmp_path, b"MIRAX")


def test_images_that_pillow_refuses_for_their_size(tmp_path, monkeypatch):
    """Slides are not bound by it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"image is too large to be read at once .* Save it as a tiled TIFF"):
        _read(tmp_path, encoded.encode(_pixels()))
    with monkeypatch.context() as patch:
        # The tiles themselves are read again by Pillow, here.
        patch.setattr(image_files, "read_rgb", lambda content, name: np.zeros((64, 64, 3), np.uint8))
        patch.setattr(image_files, "open_picture", lambda content, name: np.zeros((64, 64), bool))
        assert len(_read(tmp_path, tiled_tiff.encode(_pixels()), tiled_tiff.encode(_values()))) == 12


def test_the_check_lists_all_images_and_writes_nothing(tmp_path):
    glass = np.full((*SIZE, 3), GLASS, np.uint8)
    images = {f"images/{name}/{i}.tif": tiled_tiff.encode(_pixels(ord(name) + i)) for name in "ad" for i in range(3)}
    images |= {"images/a/0.tif": tiled_tiff.encode(glass), "images/d/2.tif": b"II*\0"}
    root = _write(tmp_path, images) / "images"
    found = image_folder.read_raw(str(root), mask_rule=mask_rules.above(0))
    with pytest.raises(UserError, match=r"2 problems:") as caught:
        records.prepare("slides", lambda scratch: tiles.cut(found, tiles.Tiling(64)), tmp_path / "out")
    assert re.search("a/0.tif: none of its 12 tiles", str(caught.value))
    assert re.search("d/2.tif cannot be read as an image", str(caught.value))
    assert not list(tmp_path.glob("out/slides/*"))


def test_records_go_on_in_further_files(tmp_path, monkeypatch):
    monkeypatch.setattr(record_files, "_RECORDS_PER_FILE", 5)
    _write(tmp_path, {f"{name}.tif": tiled_tiff.encode(_pixels(seed)) for seed, name in enumerate("abcd")})
    items = [raw_dataset.Item(name, name, tmp_path / f"{name}.tif") for name in "abcd"]
    splits = {"train": items[:2], "validation": items[2:3], "test": items[3:]}
    found = raw_dataset.RawDataset(tuple("abcd"), splits, mask_rules.above(0), description="")
    folder = records.prepare("slides", lambda scratch: tiles.cut(found, tiles.Tiling(64)), tmp_path / "out").folder
    assert len(list(folder.glob("slides-train.array_record-*"))) == 5  # of 24 tiles
    for split, part in load.read_splits(str(tmp_path / "out"), "slides").items():
        assert len(part) == 12 * len(splits[split])
        for index, name in enumerate(part.names):
            top, left = map(int, name[2:].split("_"))
            expected = _pixels("abcd".index(name[0]))[top : top + 64, left : left + 64]
            np.testing.assert_array_equal(part.read_image(index), expected)


def _run(*flags):
    return programs.run("prepare-data", *flags, ignore_warnings=True)


@pytest.mark.slow
def test_from_slides_to_splits(tmp_path):
    images, masks = {}, {}
    for number, name in enumerate(("benign", "malignant")):
        for i in range(5):
            pixels = _pixels(10 * number + i, (128, 150))
            pixels[:64, :64] = GLASS
            images[f"{name}/{i}.svs"] = tiled_tiff.encode(pixels, pixels[::2, ::2])
        masks[f"{name}/0.tif"] = tiled_tiff.encode(_values((128, 150)))
    root, masks = _write(tmp_path / "images", images), _write(tmp_path / "masks", masks)
    flags = ("--dataset=image_folder", "--name=slides", f"--data_dir={tmp_path / 'out'}")
    done = _run(*flags, f"--source={root}", f"--masks={masks}", "--tile_size=64", "--foreground=1,3")
    assert done.returncode == 0, done.stderr
    # Rows 0 and 64, columns 0, 64 and 86, without 0_0; of five images three train, one validates, one tests.
    assert re.search(r"train +30 +2 ", done.stdout) and re.search(r"validation +10 +2 .*64x64 to 64x64", done.stdout)
    parts = load.read_splits(str(tmp_path / "out"), "slides")
    assert {split: len(part) for split, part in parts.items()} == {"train": 30, "validation": 10, "test": 10}
    sources = {split: {name.rpartition("/")[0] for name in part.names} for split, part in parts.items()}
    assert set.union(*sources.values()) == images.keys() and sum(map(len, sources.values())) == 10
    for part in parts.values():
        for index, name in enumerate(part.names):
            image, _, place = name.rpartition("/")
            top, left = map(int, place.split("_"))
            class_name, number = part.class_names[part.labels[index]], int(image[-5])
            assert image.startswith(class_name) and (top, left) != (0, 0)
            window = np.s_[top : top + 64, left : left + 64]
            pixels = _pixels(10 * (class_name == "malignant") + number, (128, 150))
            pixels[:64, :64] = GLASS
            np.testing.assert_array_equal(part.read_image(index), pixels[window])
            if number:
                assert part.read_mask(index) is None
            else:
                np.testing.assert_array_equal(part.read_mask(index), np.isin(_values((128, 150))[window], [1, 3]))
    done = _run(*flags, "--check")
    assert done.returncode == 0 and re.search(r"test +10 +2 ", done.stdout), done.stderr
    flags = (*flags[:2], f"--source={root}", f"--data_dir={tmp_path / 'other'}", "--tile_microns=32")
    done = _run(*flags)
    assert done.returncode == 1 and "--tile_microns=32.0 is for tiles, --tile_size" in done.stderr
    done = _run(*flags, "--tile_size=64")
    assert done.returncode == 1 and "0.svs does not say how many microns a pixel has" in done.stderr
    done = _run("--dataset=glas", "--source=x", f"--data_dir={tmp_path}", "--tile_size=64")
    assert done.returncode == 1 and "--tile_size=64 is for own images" in done.stderr
