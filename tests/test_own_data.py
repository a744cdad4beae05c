"""Own images from folders and from CSV files, of every kind, with some masks; and what goes wrong."""

import json
import pathlib

import numpy as np
from PIL import ExifTags, Image
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.data import load
from minmax_jax.data.importing import csv_files, image_folder, mask_rules, raw_dataset, records, summary
from tests import encoded, own_layout, programs

RULE = {"mask_rule": mask_rules.above(0)}


def _pixels(seed, size=(40, 48)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def _mask(size=(40, 48)):
    return np.broadcast_to(np.arange(size[1]) < 12, size)


def _write(root, files):
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def _write_classes(root, count=10):
    images = {
        f"{name}/{i}.png": encoded.encode(_pixels(10 * ord(name[0]) + i))
        for name in ("cat", "dog")
        for i in range(count)
    }
    return _write(root, images)


def _load(name, read_raw, tmp_path):
    records.prepare(name, lambda scratch: read_raw(), tmp_path / "out")
    return load.load(str(tmp_path / "out"), name)


def test_folders_of_classes_are_split_by_a_seed(tmp_path):
    root = _write_classes(tmp_path / "images")
    _write(root, {".DS_Store": b"litter", "cat/Thumbs.db": b"litter"})
    parts = _load("pets", lambda: image_folder.read_raw(str(root), **RULE), tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 12, "validation": 4, "test": 4}
    for part in parts.values():
        assert part.class_names == ("cat", "dog")
        assert [part.class_names[label] for label in part.labels] == [name[:3] for name in part.names]
        np.testing.assert_array_equal(np.bincount(part.labels), [len(part) / 2] * 2)
        assert part.read_mask(0) is None and part.read_boxes(0).shape == (0, 4)
    names = [name for part in parts.values() for name in part.names]
    assert len(set(names)) == 20
    chosen = [
        {item.name for item in image_folder.read_raw(str(root), seed=seed, **RULE).splits["test"]} for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] == set(parts["test"].names) != chosen[2]


def test_folders_of_splits_with_masks_beside_them(tmp_path):
    images = {
        "train/b/1.jpg": encoded.encode(_pixels(0), "JPEG"),
        "train/a/1.png": encoded.encode(_pixels(1)),
        "val/a/1.png": encoded.encode(_pixels(2)),
        "test/b/x.y.png": encoded.encode(_pixels(3)),
    }
    masks = {"train/b/1.png": encoded.encode(_mask()), "test/b/x.y.bmp": encoded.encode(~_mask())}
    root, masks = _write(tmp_path / "images", images), _write(tmp_path / "masks", masks)
    parts = _load("letters", lambda: image_folder.read_raw(str(root), masks=str(masks), **RULE), tmp_path)
    assert {name: part.names for name, part in parts.items()} == {
        "train": ("train/a/1.png", "train/b/1.jpg"),
        "validation": ("val/a/1.png",),
        "test": ("test/b/x.y.png",),
    }
    assert parts["train"].read_mask(0) is None and parts["validation"].read_mask(0) is None
    np.testing.assert_array_equal(parts["train"].read_mask(1), _mask())
    np.testing.assert_array_equal(parts["test"].read_mask(0), ~_mask())
    table = summary.describe(str(tmp_path / "out"), "letters")
    assert "train            2        2          1         0  40x48 to 40x48             25.0%  a 1, b 1" in table


def _turned(content_kind, tag):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    return encoded.encode(_pixels(5), content_kind, exif=exif)


def test_the_content_tells_what_a_file_is(tmp_path):
    """Odd files under wrong names; image and mask are turned alike, and the box with them."""
    transparent = np.dstack([_pixels(6), np.zeros((40, 48), np.uint8)])
    files = {
        "gif.jpg": encoded.encode(_pixels(1)[..., 0], "GIF"),
        "png.jpg": encoded.encode(_pixels(2)),
        "sixteen.jpg": encoded.encode(_pixels(3)[..., 0].astype(np.uint16) * 256),
        "tiff": encoded.encode(_pixels(4), "TIFF"),
        "turned.jpg": _turned("PNG", 6),
        "transparent.gif": encoded.encode(transparent),
        "mask.jpg": encoded.encode(_mask()),
    }
    root = _write(tmp_path / "images", files)
    rows = [
        "gif.jpg,,a",
        "png.jpg,,b",
        "sixteen.jpg,,a",
        "tiff,,b",
        "turned.jpg,mask.jpg,a,0,0,12,40",
        "transparent.gif,,b",
    ]
    _write(tmp_path / "lists", {"train.csv": "\n".join(rows[:2]).encode(), "test.csv": "\n".join(rows[2:]).encode()})
    found = csv_files.read_raw(str(root), str(tmp_path / "lists"), **RULE)
    assert own_layout.check(found) is found
    records.prepare("odd", lambda scratch: found, tmp_path / "out")
    parts = load.read_splits(str(tmp_path / "out"), "odd")
    read = {name: part.read_image(index) for part in parts.values() for index, name in enumerate(part.names)}
    np.testing.assert_array_equal(read["gif.jpg"], np.repeat(_pixels(1)[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(read["png.jpg"], _pixels(2))
    np.testing.assert_array_equal(read["sixteen.jpg"], np.repeat(_pixels(3)[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(read["tiff"], _pixels(4))
    np.testing.assert_array_equal(read["turned.jpg"], np.rot90(_pixels(5), -1))
    assert (read["transparent.gif"] == 255).all()
    turned = parts["test"].names.index("turned.jpg")
    assert tuple(parts["test"].sizes[turned]) == (48, 40)
    np.testing.assert_array_equal(parts["test"].read_mask(turned), np.rot90(_mask(), -1))
    np.testing.assert_allclose(parts["test"].read_boxes(turned), [[0, 0, 12 / 48, 1]])


GOOD = {
    "train_s_0_f_0.csv": "cat/0.png,,cat\ncat/1.png,,cat\ndog/0.png,masks/0.png,dog\n\n",
    "deep/valid.csv": "dog/1.png,,dog\r\n",
    "test.csv": "\ufeffclass,top,left,right,bottom,image\ncat,1,2,30,40,cat/2.png\ndog,,,,,dog\\2.png\n",
}


def _write_lists(tmp_path, changes=()):
    _write_classes(tmp_path / "images", count=4)
    _write(tmp_path / "images", {"masks/0.png": encoded.encode(_mask())})
    lists = {name: text.encode() for name, text in (GOOD | dict(changes)).items() if text is not None}
    return str(tmp_path / "images"), str(_write(tmp_path / "lists", lists))


def test_csv_files_with_and_without_header_masks_and_boxes(tmp_path):
    paths = _write_lists(tmp_path)
    parts = _load("pets", lambda: csv_files.read_raw(*paths, **RULE), tmp_path)
    assert {name: part.names for name, part in parts.items()} == {
        "train": ("cat/0.png", "cat/1.png", "dog/0.png"),
        "validation": ("dog/1.png",),
        "test": ("cat/2.png", "dog/2.png"),
    }
    assert [part.read_mask(0) is None for part in parts.values()] == [True] * 3
    np.testing.assert_array_equal(parts["train"].read_mask(2), _mask())
    np.testing.assert_allclose(parts["test"].read_boxes(0), [[1 / 40, 2 / 48, 40 / 40, 30 / 48]])
    assert parts["test"].read_boxes(1).shape == (0, 4)


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    images = {f"{number}/{i}.png": encoded.encode(_pixels(i)) for number in (2, 10, 1) for i in range(5)}
    found = image_folder.read_raw(str(_write(tmp_path / "images", images)), **RULE)
    assert found.class_names == ("1", "2", "10")


@pytest.mark.parametrize(
    "rule, values, expected",
    [
        (">0", [0, 1, 255], [False, True, True]),
        (">127.5", [0, 127, 128], [False, False, True]),
        ("1,3", [0, 1, 2, 3], [False, True, False, True]),
        ("0", [[[0, 1, 2], [3, 4, 5]]], [[True, False]]),
        (">200", [[[0, 1, 2], [3, 201, 5]]], [[False, True]]),
        (">127", np.array([False, True]), [False, True]),
    ],
)
def test_rules_of_the_foreground(rule, values, expected):
    found = mask_rules.parse(rule).is_foreground(np.atleast_2d(values))
    np.testing.assert_array_equal(found, np.atleast_2d(expected))


@pytest.mark.parametrize("rule", ["", ">", ">many", "1,", "white", "<3"])
def test_rules_that_are_none(rule):
    with pytest.raises(UserError, match="must be '>T', such as '>0'"):
        mask_rules.parse(rule)


def test_jpeg_masks_need_a_threshold(tmp_path):
    _write(tmp_path, {"a.png": encoded.encode(_pixels(0)), "m.jpg": encoded.encode(np.uint8(_mask() * 255), "JPEG")})
    item = raw_dataset.Item("a", "a", tmp_path / "a.png", tmp_path / "m.jpg")

    def read(rule):
        found = raw_dataset.RawDataset(("a",), {"train": [item]}, mask_rules.parse(rule), description="")
        return raw_dataset.read_record(item, found)["mask"]

    assert read(">127") == encoded.encode(_mask(), compress_level=3)
    for rule in (">0", "255"):
        with pytest.raises(UserError, match="m.jpg is a JPEG, .* foreground='>127'"):
            read(rule)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train_s_0_f_0.csv": None}, r"must hold exactly one train\*.csv, found: none"),
        ({"test_2.csv": ""}, r"exactly one test\*.csv, found: .*test.csv, .*test_2.csv"),
        ({"deep/valid.csv": "dog/1.png,dog"}, r"valid.csv, line 1: \['dog/1.png', 'dog'\] is not image,mask,class or"),
        ({"test.csv": "image,class\ncat/2.png,,cat"}, "test.csv, line 2: .* is not image,class"),
        ({"test.csv": "cat/2.png,,cat,1,2,3,x"}, r"line 1: the box \['1', '2', '3', 'x'\] is not four numbers"),
        ({"test.csv": "cat/2.png,,cat,1,,,"}, "line 1: the box .* is not four numbers"),
        ({"test.csv": "cat/2.png,,cat,9,0,9,9"}, "contains no pixel"),
        ({"test.csv": ",,cat"}, "line 1: the row names no image"),
        ({"test.csv": "cat/2.png,,"}, "line 1: the row names no class"),
        (
            {"test.csv": "cat/0.png,,cat"},
            r"train_s_0_f_0.csv, line 1: image 'cat/0.png' is already in .*test.csv, line 1",
        ),
        ({"test.csv": "cat/2.png,,bird"}, "the class 'bird' has no training image"),
        ({"test.csv": "../x.png,,cat"}, "must be a path below"),
        ({"test.csv": "/x.png,,cat"}, "must be a path below"),
        ({"test.csv": "cat/9.png,,cat"}, "9.png is missing"),
        ({"test.csv": "cat/2.png,masks/9.png,cat"}, "9.png is missing"),
        ({"test.csv": "\n"}, r"test.csv lists no images"),
        (
            {"train_s_0_f_0.csv": "cat/0.png,,cat", "deep/valid.csv": None, "test.csv": "cat/2.png,,cat"},
            "one class, 'cat'",
        ),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, changes, message):
    paths = _write_lists(tmp_path, changes)
    with pytest.raises(UserError, match=message):
        _load("pets", lambda: csv_files.read_raw(*paths, **RULE), tmp_path)
    assert not list(tmp_path.glob("out/pets/*"))


def test_lists_must_be_utf8(tmp_path):
    source, lists = _write_lists(tmp_path)
    _write(tmp_path / "lists", {"test.csv": "cat/2.png,,größe".encode("latin-1")})
    with pytest.raises(UserError, match=r"test.csv is not UTF-8 text"):
        csv_files.read_raw(source, lists, **RULE)


@pytest.mark.parametrize(
    "files, message",
    [
        ({"train/a/1.png": b""}, "has no folder 'test'"),
        ({"train/a/1.png": b"", "test/a/1.png": b"", "other/a/1.png": b""}, "other is not a split"),
        (
            {f"{name}/a/1.png": b"" for name in ("train", "val", "valid", "test")},
            "has two folders of one split",
        ),
        ({"a/1.png": b"", "b.png": b""}, "b.png is outside of the class folders"),
        ({"a/b/1.png": b""}, "b is a folder inside that of a class"),
        ({"a/1.png": b"", "a/2.png": b""}, "The class 'a' needs at least 3 images"),
        ({f"a/{index}.png": b"" for index in range(3)}, "There is one class, 'a'"),
        ({"train/a/1.png": b"", "train/b/1.png": b"", "test/c/1.png": b""}, "the class 'c' has no training image"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, files, message):
    root = _write(tmp_path / "images", files)
    with pytest.raises(UserError, match=message):
        own_layout.check(image_folder.read_raw(str(root), **RULE))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"source=.*nowhere' is not a folder"):
        image_folder.read_raw(str(tmp_path / "nowhere"), **RULE)
    with pytest.raises(UserError, match=r"masks=.*masks' contains no mask of an image"):
        image_folder.read_raw(
            str(_write_classes(tmp_path / "images")), masks=str(_write_classes(tmp_path / "masks/deep").parent), **RULE
        )
    with pytest.raises(UserError, match=r"masks=.*nowhere' is not a folder"):
        image_folder.read_raw(str(tmp_path), masks=str(tmp_path / "nowhere"), **RULE)
    with pytest.raises(UserError, match=r"source=.*nowhere' is not a folder"):
        csv_files.read_raw(str(tmp_path / "nowhere"), str(tmp_path), **RULE)
    for folder in ("", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match=r"folds=.* is not a folder; it must hold train.csv and test.csv"):
            csv_files.read_raw(str(tmp_path), folder, **RULE)


@pytest.mark.shared
@pytest.mark.parametrize(
    "folder, masks, rows",
    [
        ("cub_mini", "segmentations/{}.png", lambda path: (path.parent.name, path.relative_to(path.parents[1]))),
        ("flowers102_mini", "segmim/{}.jpg", lambda path: (path.stem[6:8], path.name)),
    ],
)
def test_real_birds_and_flowers(shared, tmp_path, folder, masks, rows):
    """All train, and all test; the annotators' mean and the binary masks as JPEG are cut in the middle."""
    root = shared / "data" / folder
    images = sorted(path for kind in ("images/*/*.jpg", "jpg/*.jpg") for path in root.glob(kind))
    lines = []
    for path in images:
        class_name, name = rows(path)
        mask = masks.format(str(pathlib.PurePosixPath(name).with_suffix("")).replace("image_", "segmim_"))
        lines.append(f"{path.relative_to(root)},{mask},{class_name}")
    _write(
        tmp_path / "lists", {"train.csv": "\n".join(lines[::2]).encode(), "test.csv": "\n".join(lines[1::2]).encode()}
    )
    found = csv_files.read_raw(str(root), str(tmp_path / "lists"), mask_rule=mask_rules.parse(">127"))
    records.prepare("real", lambda scratch: found, tmp_path / "out")
    parts = load.read_splits(str(tmp_path / "out"), "real")
    assert sum(len(part) for part in parts.values()) == len(images)
    items = {item.name: item for item in found}
    for part in parts.values():
        for index, name in enumerate(part.names):
            np.testing.assert_array_equal(part.read_image(index), np.asarray(Image.open(root / name).convert("RGB")))
            expected = np.asarray(Image.open(items[name].mask)) > 127
            np.testing.assert_array_equal(part.read_mask(index), expected)
            assert 0.01 < expected.mean() < 0.9


def _run(*command):
    return programs.run(*command, ignore_warnings=True)


@pytest.mark.slow
def test_from_a_folder_to_results(tmp_path):
    root = _write_classes(tmp_path / "images")
    _write(tmp_path / "masks", {"cat/3.png": encoded.encode(_mask()), "cat/8.png": encoded.encode(_mask())})
    done = _run(
        "prepare-data",
        *("--dataset=image_folder", "--name=pets", f"--source={root}", f"--masks={tmp_path / 'masks'}"),
        f"--data_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    assert "Train with --config=custom:pets --config.data.dir=" in done.stdout
    done = _run(
        "train",
        *("--config=configs/custom.py:pets,scratch", f"--config.data.dir={tmp_path / 'out'}"),
        *(
            "--config.data.max_side=32",
            "--config.model.resnet.width=4",
            "--config.train.epochs=2",
            "--config.batch_size=4",
        ),
        *(
            "--config.model.resnet.stage_sizes=(1,)",
            "--config.model.resnet.stage_strides=(1,)",
            f"--workdir={tmp_path / 'run'}",
        ),
    )
    assert done.returncode == 0, done.stderr
    test = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    assert (test["num_images"], test["num_images_with_mask"]) == (4, 1)
    assert len(list((tmp_path / "run" / "pictures").rglob("*/*.png"))) == 2


@pytest.mark.parametrize("name", ["", "cub", "Pets", "my pets", "2pets", "../pets"])
def test_names_that_cannot_be_used(name):
    raw_dataset.check_name("my_pets2", taken=("cub",))
    with pytest.raises(UserError, match=f"name='{name}' must be a name .* none of cub"):
        raw_dataset.check_name(name, taken=("cub",))
