"""CUB-200-2011 and CUB5 from made-up releases in the official layout, and what goes wrong."""

import csv
import dataclasses
import re
import tarfile

import numpy as np
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.data import dataset, load
from minmax_jax.data.importing import cub, records, summary
from minmax_jax.runs.building import data_splits
from tests import cub_layout

# Ten training and five test images of each class.
CLASSES = sorted([*data_splits.CUB5_CLASS_NAMES, "001.Black_footed_Albatross"])
IMAGES = [(name, f"{name[4:]}_{number:04d}", number < 10) for name in CLASSES for number in range(15)]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return cub_layout.write(tmp_path_factory.mktemp("official"), IMAGES)


def _prepare(sources, data_dir):
    read_raw = lambda scratch: cub.read_raw([str(source) for source in sources], scratch)
    return records.prepare("cub", read_raw, data_dir).folder


@pytest.fixture(scope="module")
def data_dir(official, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    _prepare([official], folder)
    return str(folder)


def test_official_splits_and_a_fifth_of_each_class_validates(data_dir):
    parts = load.load(data_dir, "cub")
    assert {name: len(part) for name, part in parts.items()} == {"train": 48, "validation": 12, "test": 30}
    assert parts["train"].class_names == tuple(CLASSES)
    np.testing.assert_array_equal(np.bincount(parts["validation"].labels), [2] * 6)
    for name, part in parts.items():
        for index, image in enumerate(part.names):
            assert image.startswith(part.class_names[part.labels[index]][4:])
            assert (int(image[-4:]) < 10) == (name != "test")


def test_masks_are_the_majority_of_the_votes_and_boxes_are_shares(data_dir):
    part = load.load(data_dir, "cub")["test"]
    for index in (0, 29):
        number = [name for _, name, _ in IMAGES].index(part.names[index]) + 1
        expected = np.arange(40) >= number % 32 + 3  # three votes of five
        np.testing.assert_array_equal(part.read_mask(index), np.broadcast_to(expected, (34, 40)))
        x, y, width, height = cub_layout.box_of(number)
        box = [[y / 34, x / 40, (y + height) / 34, (x + width) / 40]]
        np.testing.assert_allclose(part.read_boxes(index), box, rtol=1e-6)


def test_cub5_is_a_subset_by_class(data_dir):
    parts = load.load(data_dir, "cub", class_names=data_splits.CUB5_CLASS_NAMES)
    whole = load.load(data_dir, "cub")
    assert {name: len(part) for name, part in parts.items()} == {"train": 40, "validation": 10, "test": 25}
    for name, part in parts.items():
        assert part.class_names == data_splits.CUB5_CLASS_NAMES
        for index in (0, len(part) - 1):
            assert part.names[index].startswith(part.class_names[part.labels[index]][4:])
        albatross = {image for image in whole[name].names if image.startswith("Black")}
        assert not albatross & set(part.names)


def test_a_dataset_without_a_class_is_refused(data_dir):
    with pytest.raises(ValueError, match=r"has no class '020.Chat'"):
        load.load(data_dir, "cub", class_names=("019.Gray_Catbird", "020.Chat"))


def test_archives_will_do(official, tmp_path):
    for part, archive in cub.PARTS.items():
        with tarfile.open(tmp_path / archive, "w:gz") as tar:
            tar.add(official / part, part)
    _prepare([tmp_path], tmp_path / "out")
    assert len(load.load(str(tmp_path / "out"), "cub")["test"]) == 30


def test_the_table(data_dir):
    header, train, test = summary.describe(data_dir, "cub").splitlines()
    assert re.split(r"  +", header)[:5] == ["split", "images", "classes", "with mask", "with box"]
    assert re.fullmatch(r"train +60 +6 +60 +60  34x40 to 34x40 +[\d.]+%  10 to 10", train)
    assert re.fullmatch(r"test +30 +6 +30 +30  34x40 to 34x40 +[\d.]+%  5 to 5", test)


def test_a_check_finds_what_does_not_fit(data_dir, monkeypatch):
    records.check(data_dir, "cub")
    whole = load.read_splits(data_dir, "cub")
    test = whole["test"]

    def unreadable(index):
        raise dataset.DataError("The image cannot be read.") if index == 2 else RuntimeError("Corrupted file.")

    damages = [
        (dict(sizes=test.sizes + 1), r"the image has \(34, 40\) pixels instead of \(35, 41\)"),
        (dict(read_mask=lambda index: np.zeros((3, 4), bool)), r"the mask has \(3, 4\) pixels, the image \(34, 40\)"),
        (
            dict(read_boxes=lambda index: np.float32([[0, 0, 1, 1.5]])),
            r"the boxes \[\[0.0, 0.0, 1.0, 1.5\]\] are not valid",
        ),
        (dict(labels=test.labels + 6), r"the label 6 is not one of 6 classes"),
        (dict(read_image=unreadable), r"(?s)30 problems:.*Corrupted file.*'.*_0012': The image cannot be read"),
    ]
    for changes, message in damages:
        monkeypatch.setattr(
            load, "read_splits", lambda *_, changes=changes: {"test": dataclasses.replace(test, **changes)}
        )
        with pytest.raises(UserError, match=message):
            records.check(data_dir, "cub")


def _edit(name, old, new):
    def edit(lists):
        text = (lists / name).read_text()
        assert old in text
        (lists / name).write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "classes.txt").unlink(), "classes.txt is missing"),
        (
            _edit("images.txt", "3 001.", "2 001."),
            "images.txt, line 3: '2 001.* is not a number of its own and 1 value",
        ),
        (_edit("bounding_boxes.txt", "3 4.0 ", "3 "), "bounding_boxes.txt, line 3: .* and 4 value"),
        (_edit("bounding_boxes.txt", "3 4.0 ", "3 four "), r"gives image 3 the box \['four'.*no numbers"),
        (_edit("bounding_boxes.txt", "3 4.0 ", "3 44.0 "), "contains no pixel"),
        (_edit("train_test_split.txt", "3 1\n", ""), "train_test_split.txt must name the images of images.txt"),
        (_edit("image_class_labels.txt", "3 1\n", "3 250\n"), "the label 250, not in classes.txt"),
        (lambda f: next(f.glob("images/*/*7.jpg")).unlink(), "_0007.jpg is missing"),
        (_edit("images.txt", "_0003.jpg", "_0004.jpg"), "the second image named 'Black_footed_Albatross_0004'"),
    ],
)
def test_a_damaged_release_is_refused(tmp_path, damage, message):
    official = cub_layout.write(tmp_path / "official", IMAGES)
    damage(official / "CUB_200_2011")
    with pytest.raises(UserError, match=message):
        _prepare([official], tmp_path / "out")
    assert not list(tmp_path.glob("out/cub/*"))


@pytest.mark.slow
@pytest.mark.shared
def test_published_folds_of_the_full_release(shared, tmp_path):
    """The 11,788 names and 200 classes, in the layout of the release; the images are made up."""
    folds = shared / "data" / "folds"
    images = []
    for path in (folds / "Caltech-UCSD-Birds-200-2011").rglob("*.csv"):
        with path.open(newline="") as file:
            for image, _, class_name in csv.reader(file):
                images.append((class_name, image.split("/")[-1].removesuffix(".jpg"), not path.name.startswith("test")))
    _prepare([cub_layout.write(tmp_path / "official", sorted(images))], tmp_path)

    birds = {"folds_dir": str(folds / "Caltech-UCSD-Birds-200-2011")}
    cub5 = {"folds_dir": str(folds / "Caltech-UCSD-Birds-200-2011-CUB5"), "class_names": data_splits.CUB5_CLASS_NAMES}
    for options, sizes in ((birds, (4794, 1200, 5794)), (cub5, (120, 30, 145))):
        parts = load.load(str(tmp_path), "cub", **options)
        assert tuple(len(part) for part in parts.values()) == sizes
        seeded = load.load(str(tmp_path), "cub", **options | {"folds_dir": ""})
        assert tuple(len(part) for part in seeded.values()) == sizes
        assert set(seeded["test"].names) == set(parts["test"].names)
