"""What people bring as their own images: near misses are named, not silently read."""

import unicodedata

import numpy as np
import pytest

from minmax_jax.data import dataset, image_files
from minmax_jax.data.importing import checks, csv_files, image_folder, mask_rules, problems, records, summary
from minmax_jax.errors import UserError
from tests import encoded, own_layout

RULE = mask_rules.above(0)


def _images(root, *names):
    for seed, name in enumerate(names):
        own_layout.put(name, encoded.encode(own_layout.pixels(seed)))(root)


def _classes(root, *class_names):
    _images(root, *(f"{class_name}/{index}.png" for class_name in class_names for index in range(4)))


def _read(root, **options):
    return image_folder.read_raw(str(root), mask_rule=RULE, **options)


def test_masks_that_belong_to_no_image_are_counted_and_named(tmp_path, caplog):
    _classes(tmp_path / "images", "cat", "dog")
    _images(tmp_path / "masks", "cat/0.png", *(f"cat/{index}_mask.png" for index in range(1, 4)), "Dog/0.png")
    raw = _read(tmp_path / "images", masks=str(tmp_path / "masks"))
    assert sum(item.mask is not None for item in raw) == 1
    assert "4 of 5 masks belong to no image, and 7 of 8 images have no mask" in caplog.text
    assert "cat/1_mask.png" in caplog.text and "Dog/0.png" in caplog.text


def test_complete_masks_are_read_without_a_warning(tmp_path, caplog):
    _classes(tmp_path / "images", "cat", "dog")
    _classes(tmp_path / "masks", "cat", "dog")
    _images(tmp_path / "masks", "cat/.DS_Store", "cat/Thumbs.db")
    assert all(item.mask for item in _read(tmp_path / "images", masks=str(tmp_path / "masks")))
    assert not caplog.text


def test_accents_of_macos_are_those_of_other_systems(tmp_path, caplog):
    composed, split = (unicodedata.normalize(form, "café é") for form in ("NFC", "NFD"))
    assert composed != split
    _images(tmp_path / "images" / "train", f"{split}/é.png", f"{split}/1.png", "dog/0.png")
    _images(tmp_path / "images" / "test", f"{composed}/{split}.png", "dog/1.png")
    _images(tmp_path / "masks" / "train", f"{composed}/{unicodedata.normalize('NFD', 'é')}.png", f"{composed}/1.png")
    _images(tmp_path / "masks" / "test", f"{split}/{composed}.png")
    raw = _read(tmp_path / "images", masks=str(tmp_path / "masks"))
    assert raw.class_names == (composed, "dog") and not caplog.text
    assert sorted(item.name for item in raw if item.mask) == sorted(
        [f"train/{composed}/1.png", f"train/{composed}/é.png", f"test/{composed}/{composed}.png"]
    )


@pytest.mark.parametrize("litter", ["thumbs.db", "Desktop.INI", ".DS_Store", "__MACOSX/cat/._0.png", "@eaDir/x/y.jpg"])
def test_litter_of_desktops_is_passed_over(tmp_path, litter):
    _classes(tmp_path, "cat", "dog")
    _images(tmp_path, litter)
    assert len(list(_read(tmp_path))) == 8


def test_folders_that_are_rarely_classes_are_named(tmp_path, caplog):
    _classes(tmp_path, "Images", "masks")
    _read(tmp_path)
    assert "['Images', 'masks'] are read as classes" in caplog.text and "--masks" in caplog.text


def test_splits_that_are_incomplete_say_what_to_do(tmp_path):
    _images(tmp_path / "a", "train/cat/0.png", "train/dog/0.png", "val/cat/1.png", "val/dog/1.png")
    with pytest.raises(UserError, match="Rename 'val' to 'test'"):
        _read(tmp_path / "a")
    _classes(tmp_path / "b", "bus", "car", "train")
    with pytest.raises(UserError, match="the name of a class, use DIR/train/<class>"):
        _read(tmp_path / "b")


@pytest.mark.parametrize(
    "name, advice",
    [
        ("a.HEIC", "HEIC is not read: convert it to JPEG or PNG"),
        ("a.svg", "SVG is not read"),
        ("a.xml", "It is no image: move it"),
        ("a.png", "Replace it by an intact copy"),
    ],
)
def test_files_that_are_no_images_are_named_for_what_they_are(name, advice):
    with pytest.raises(dataset.DataError, match=f"{name} cannot be read as an image .*{advice}"):
        image_files.open_picture(b"neither of them", name)


def test_many_reasons_are_cut(tmp_path):
    _classes(tmp_path, "cat", "dog")
    for index in range(50):
        own_layout.put(f"cat/{index}.txt", b"0 .5 .5 %d" % index)(tmp_path)
    with pytest.raises(dataset.DataError) as error:
        checks.check(_read(tmp_path))
    lines = str(error.value).splitlines()
    assert lines[0] == "50 problems:" and "... and 30 more." in lines[21] and len(lines) == 23
    assert len(problems.listing([problems.Problem("train", "a", "b")] * 20).splitlines()) == 21


def _lists(root, **files):
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        own_layout.put(f"lists/{name}.csv", ("\n".join(rows) + "\n").encode())(root)
    return csv_files.read_raw(str(root / "images"), str(root / "lists"), mask_rule=RULE)


ROWS = ["cat/0.png,,cat", "dog/0.png,,dog"]


def test_lists_of_validation_images_and_lists_that_nobody_reads(tmp_path, caplog):
    for name in ("val", "valid", "validation_fold_0"):
        root = tmp_path / name
        raw = _lists(root, train=ROWS, test=["cat/2.png,,cat"], **{name: ["cat/1.png,,cat"]})
        assert [item.name for item in raw.splits["validation"]] == ["cat/1.png"]
        assert not caplog.text
    _lists(tmp_path / "other", train=ROWS, test=["cat/2.png,,cat"], dev=["cat/1.png,,cat"])
    assert "1 CSV files" in caplog.text and "dev.csv" in caplog.text


def test_absolute_paths_below_the_source(tmp_path):
    rows = [f"{tmp_path}/images/cat/0.png,,cat", "dog/0.png,,dog"]
    raw = _lists(tmp_path, train=rows, test=["cat/2.png,,cat"])
    assert [item.name for item in raw.splits["train"]] == ["cat/0.png", "dog/0.png"]


def test_rows_that_differ_in_the_box_alone_are_boxes_of_one_image(tmp_path):
    rows = ["cat/0.png,,cat,1,2,11,12", "cat/0.png,,cat,20,22,30,32", "dog/0.png,,dog,,,,"]
    raw = _lists(tmp_path, train=rows, test=["cat/2.png,,cat"])
    cat, dog = raw.splits["train"]
    np.testing.assert_array_equal(cat.boxes, [[2, 1, 12, 11], [22, 20, 32, 30]])
    assert dog.boxes == () and raw.bad == ()
    # The same box twice, another class, or no box, is still a mistake.
    for second in ("cat/0.png,,cat,1,2,11,12", "cat/0.png,,dog,20,22,30,32", "cat/0.png,,cat,,,,"):
        bad = _lists(tmp_path, train=[rows[0], second, rows[2]], test=["cat/2.png,,cat"]).bad
        assert len(bad) == 1 and "already in" in bad[0].reason


@pytest.mark.parametrize(
    "share, warning", [(0.25, ""), (0.75, "Most of the pixels are foreground"), (1.0, "foreground: train 6, test 2")]
)
def test_masks_that_are_full_or_inverted_are_warned_of(tmp_path, share, warning):
    _classes(tmp_path / "images", "cat", "dog")
    mask = np.arange(own_layout.SIZE[0] * own_layout.SIZE[1]).reshape(own_layout.SIZE) < share * np.prod(
        own_layout.SIZE
    )
    for class_name in ("cat", "dog"):
        for index in range(4):
            own_layout.put(f"masks/{class_name}/{index}.png", encoded.encode(mask))(tmp_path)
    raw = _read(tmp_path / "images", masks=str(tmp_path / "masks"))
    records.prepare("pets", lambda scratch: raw, tmp_path / "out")
    table = summary.describe(str(tmp_path / "out"), "pets")
    assert warning in table and ("--foreground" in table) == bool(warning)
