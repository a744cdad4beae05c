"""What people bring as their own images: near misses are named, not silently read."""

import fcntl
import os
import re
import shutil
import unicodedata
import zipfile

import numpy as np
import pytest

from minmax_jax import evaluation
from minmax_jax.base.errors import UserError
from minmax_jax.data import dataset, image_files, load
from minmax_jax.data.importing import (
    archives,
    csv_files,
    image_folder,
    mask_checks,
    mask_rules,
    problems,
    raw_dataset,
    records,
    summary,
)
from minmax_jax.evaluation.metrics import dice
from minmax_jax.method import Prediction
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


def test_masks_in_the_folders_of_their_images_are_warned_of(tmp_path, caplog):
    _images(tmp_path, *(f"{name}/a ({index}).png" for name in ("cat", "dog") for index in range(4)))
    _images(tmp_path, "cat/mask.png", "cat/unmasked.png")
    _read(tmp_path)
    assert not caplog.text
    _images(tmp_path, "cat/a (1)_mask.png", "cat/a (1)_mask_1.png", "dog/a (2)-Seg.png")
    _read(tmp_path)
    assert (
        "3 files look like masks of images in the same folder" in caplog.text and "cat/a (1)_mask_1.png" in caplog.text
    )


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
        own_layout.put(f"cat/{index}.jpg", b"0 .5 .5 %d" % index)(tmp_path)
    with pytest.raises(dataset.DataError) as error:
        own_layout.check(_read(tmp_path))
    lines = str(error.value).splitlines()
    assert lines[0] == "50 problems:" and "... and 30 more." in lines[21] and len(lines) == 23
    assert len(problems.listing([problems.Problem("train", "a", "b")] * 20).splitlines()) == 21


def _lists(root, **files):
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        own_layout.put(f"lists/{name}.csv", ("\n".join(rows) + "\n").encode())(root)
    return csv_files.read_raw(str(root / "images"), str(root / "lists"), mask_rule=RULE)


ROWS = ["cat/0.png,,cat", "dog/0.png,,dog"]


def test_absolute_paths_of_a_source_that_is_named_another_way(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "images")
    (tmp_path / "work").mkdir()
    rows = [f"{tmp_path}/images/{name}/0.png,,{name}" for name in ("cat", "dog")]
    _lists(tmp_path, train=rows, test=[f"{tmp_path}/images/cat/1.png,,cat"])
    monkeypatch.chdir(tmp_path / "work")
    for source in ("../images", str(tmp_path / "link"), f"{tmp_path}/work/../images"):
        raw = csv_files.read_raw(source, "../lists", mask_rule=RULE)
        assert [item.name for item in raw.splits["test"]] == ["cat/1.png"]
    with pytest.raises(UserError, match="must be a path below"):
        csv_files.read_raw(str(tmp_path / "work"), "../lists", mask_rule=RULE)


def test_choices_that_nothing_reads(tmp_path):
    """Validation images that came with the data are not chosen again."""
    names = [f"{split}/{name}/0.png" for split in ("train", "valid", "test") for name in ("cat", "dog")]
    _images(tmp_path / "images", *names)
    raw = _read(tmp_path / "images")
    records.prepare("pets", lambda scratch: raw, tmp_path / "out")
    assert len(load.load(tmp_path / "out", "pets")["validation"]) == 2
    with pytest.raises(UserError, match="validation_share=0.6 and validation_seed=5 have no effect"):
        load.load(tmp_path / "out", "pets", validation_share=0.6, seed=5)


def test_one_process_prepares_a_dataset(tmp_path):
    (tmp_path / "out/pets").mkdir(parents=True)
    held = os.open(tmp_path / "out/pets", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="out/pets is in use: another process prepares it"):
        records.prepare("pets", lambda scratch: None, tmp_path / "out")
    os.close(held)


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
    # Also in rows that do not follow each other.
    apart = _lists(tmp_path, train=[rows[0], rows[2], rows[1]], test=["cat/2.png,,cat"])
    assert apart.splits["train"] == raw.splits["train"] and apart.bad == ()
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


@pytest.mark.parametrize("names", [("Train", "TEST"), ("training", "testing"), ("train", "test")])
def test_folders_of_splits_by_any_usual_name(tmp_path, names):
    _images(tmp_path, *(f"{name}/{class_name}/{name}.png" for name in names for class_name in ("cat", "dog")))
    raw = _read(tmp_path)
    assert {split: len(items) for split, items in raw.splits.items()} == {"train": 2, "test": 2}
    _images(tmp_path, "Training/cat/0.png", "train/dog/0.png")
    with pytest.raises(dataset.DataError, match="two folders of one split"):
        _read(tmp_path)


def test_one_picture_in_two_classes(tmp_path):
    _classes(tmp_path, "cat", "dog")
    content = encoded.encode(own_layout.pixels(99))
    for name in ("train/cat/9.png", "train/dog/8.png", "test/cat/1.png", "test/dog/2.png"):
        own_layout.put(name, content if name.startswith("train") else encoded.encode(own_layout.pixels(len(name))))(
            tmp_path / "pets"
        )
    own_layout.put("test/dog/2.png", encoded.encode(own_layout.pixels(7)))(tmp_path / "pets")
    with pytest.raises(dataset.DataError, match="dog/8.png of the class 'dog' is the same image as .*cat/9.png"):
        own_layout.check(_read(tmp_path / "pets"))


@pytest.mark.parametrize(
    "cell",
    [
        *('"dog;cat"', "cat|dog", '"cat, dog"', "cat/dog", "cat + dog", "cat & dog", "cat\tdog", '"cat\ndog"'),
        *('"[""cat"", ""dog""]"', '"[""fox"", null]"', '"[fox, cow]"', '"{fox,cow}"', '"{""cat"": 1, ""dog"": 0}"'),
    ],
)
def test_several_labels_of_an_image(tmp_path, cell):
    _classes(tmp_path / "images", "cat", "dog")
    rows = [*ROWS, f"cat/2.png,,{cell}"]
    raw = _lists(tmp_path, train=rows, test=["cat/1.png,,cat"])
    assert raw.class_names == ("cat", "dog") and len(raw.splits["train"]) == 2
    with pytest.raises(dataset.DataError, match=r"train.csv, line [34]: The class .* lists 2 labels. .* Keep one of"):
        own_layout.check(raw)
    assert [problem.name for problem in own_layout.check(raw, skip_bad=True).bad] == ["cat/2.png"]


@pytest.mark.parametrize("cell", ['"[""cat""]"', "['cat']", '"{""cat"": 1}"'])
def test_a_list_of_one_label(tmp_path, cell):
    _classes(tmp_path / "images", "cat", "dog")
    raw = _lists(tmp_path, train=[*ROWS, f"cat/2.png,,{cell}"], test=["cat/1.png,,cat"])
    with pytest.raises(
        dataset.DataError, match=r"line 3: The class .* is a list of one label. Write the label alone: cat"
    ):
        own_layout.check(raw)


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("header", [[], ["image,mask,class"]])
def test_lists_of_spreadsheets_in_other_countries(tmp_path, separator, header):
    _classes(tmp_path / "images", "cat", "dog")
    rows = [row.replace(",", separator) for row in [*header, *ROWS]]
    raw = _lists(tmp_path, train=rows, test=["cat/1.png,,cat"])
    assert raw.class_names == ("cat", "dog") and len(raw.splits["train"]) == 2


def test_a_list_in_utf_16(tmp_path):
    _classes(tmp_path / "images", "cat", "dog")
    _lists(tmp_path, train=ROWS, test=["cat/1.png,,cat"])
    (path,) = tmp_path.rglob("train.csv")
    path.write_text("\n".join(ROWS), encoding="utf-16")
    with pytest.raises(dataset.DataError, match='train.csv is UTF-16, .* Save it as UTF-8, in Excel as "CSV UTF-8"'):
        csv_files.read_raw(str(tmp_path / "images"), str(path.parent), mask_rule=mask_rules.above(0))


def test_a_name_with_a_separator_may_be_one_class(tmp_path, caplog):
    _classes(tmp_path / "images", "cat", "dog")
    rows = [*ROWS, 'cat/2.png,,"spruce, Norway"', "dog/2.png,,[x", "cat/3.png,,n/a", "dog/3.png,,cat dog"]
    raw = _lists(tmp_path, train=rows, test=["cat/1.png,,cat"])
    assert raw.class_names == ("[x", "cat", "cat dog", "dog", "n/a", "spruce, Norway")
    message = "2 of 6 classes are read as one class each, though their names have separators"
    assert f"{message}: 'cat dog', 'spruce, Norway'. If they list several: An image" in caplog.text


def test_a_folder_that_names_several_classes(tmp_path):
    _classes(tmp_path, "cat", "dog", "cat,dog")
    with pytest.raises(dataset.DataError, match=r"The class 'cat,dog' lists 2 labels. An image has one class"):
        _read(tmp_path)


def test_an_image_in_rows_of_two_classes(tmp_path):
    _classes(tmp_path / "images", "cat", "dog")
    raw = _lists(tmp_path, train=[*ROWS, "cat/0.png,,dog"], test=["cat/1.png,,cat"])
    message = (
        r"train.csv, line 3: image 'cat/0.png' is already in .*train.csv, line 1, with the class 'cat'. Keep one row"
    )
    with pytest.raises(dataset.DataError, match=message):
        own_layout.check(raw)


@pytest.mark.parametrize("head", ["image,cat,dog", "filename,label", "path,cat,dog,bird", "file_name,class"])
def test_headers_of_others_are_named(tmp_path, head):
    _classes(tmp_path / "images", "cat", "dog")
    with pytest.raises(UserError, match=r"train.csv, line 1: .* one must be 'image' and one 'class', .* is not read"):
        _lists(tmp_path, train=[head, "cat/0.png,1,0"], test=["cat/1.png,,cat"])


def test_boxes_as_shares_are_named(tmp_path):
    rows = ["cat/0.png,,cat,0.1,0.2,0.5,0.6", "cat/1.png,,cat,0,0,1,1", "dog/0.png,,dog,,,,"]
    raw = _lists(tmp_path, train=rows, test=["cat/2.png,,cat"])
    assert ["give pixels, not shares" in problem.reason for problem in raw.bad] == [True]


def test_absolute_mask_paths_are_those_of_images(tmp_path):
    rows = [f"cat/0.png,{tmp_path}/images/cat/m.png,cat", "dog/0.png,/elsewhere/m.png,dog", "dog/1.png,../m.png,dog"]
    raw = _lists(tmp_path, train=[*rows, "dog/2.png,,dog"], test=["cat/2.png,,cat"])
    assert raw.splits["train"][0].mask == tmp_path / "images" / "cat" / "m.png"
    assert ["must be a path below" in problem.reason for problem in raw.bad] == [True, True]


def test_an_archive_of_own_images(tmp_path):
    """Packed with its folder or without, and with what macOS adds."""
    _classes(tmp_path / "pets", "cat", "dog")
    _images(tmp_path / "__MACOSX", "pets/cat/._0.png")
    inside = shutil.make_archive(str(tmp_path / "inside"), "zip", tmp_path, "pets")
    with zipfile.ZipFile(inside, "a") as file:
        file.write(tmp_path / "__MACOSX" / "pets" / "cat" / "._0.png", "__MACOSX/pets/cat/._0.png")
    flat = shutil.make_archive(str(tmp_path / "flat"), "gztar", tmp_path / "pets")
    expected = sorted(item.name for item in _read(tmp_path / "pets"))
    for archive in (inside, flat):
        folder = archives.unpacked(archive, tmp_path / "scratch")
        assert sorted(item.name for item in _read(folder)) == expected
    assert archives.unpacked(str(tmp_path / "pets"), tmp_path / "scratch") == str(tmp_path / "pets")
    own_layout.put("pets.rar", b"Rar!")(tmp_path)
    with pytest.raises(dataset.DataError, match="pets.rar cannot be unpacked as a ZIP or tar archive"):
        archives.unpacked(str(tmp_path / "pets.rar"), tmp_path / "scratch")


def _masked(root, mask):
    """Eight images with one mask."""
    _classes(root / "images", "cat", "dog")
    for class_name in ("cat", "dog"):
        for index in range(4):
            own_layout.put(f"masks/{class_name}/{index}.png", mask)(root)
    return dict(masks=str(root / "masks"))


def _three_values():
    values = np.zeros(own_layout.SIZE, np.uint8)
    values[:, :12], values[:, 12:16] = 1, 255
    return values


def _in_alpha(values):
    return np.concatenate([np.zeros((*values.shape, 3), np.uint8), values[..., None]], axis=-1)


@pytest.mark.parametrize(
    "pixels, warning",
    [
        (_three_values(), "8 of 8 masks .* more than two values; .*cat/0.png has 0, 1, 255. "),
        (np.arange(1920, dtype=np.uint8).reshape(own_layout.SIZE), "has 0, 1, 2, 3, 4, 5, ..."),
        (np.stack([_three_values()] * 3, axis=-1), r"has \(0, 0, 0\), \(1, 1, 1\), \(255, 255, 255\)"),
        (_in_alpha(np.uint8(_three_values() > 1) * 255), "8 of 8 masks .* have one colour and an alpha channel"),
        (np.uint8(_three_values() > 0), ""),
        (_three_values() > 0, ""),
    ],
)
def test_values_of_masks_that_the_default_rule_misreads(tmp_path, caplog, pixels, warning):
    options = _masked(tmp_path, encoded.encode(pixels))
    mask_checks.warn_of_values(_read(tmp_path / "images", **options))
    assert re.search(warning, caplog.text) if warning else not caplog.text


def test_ignored_values_reach_the_metrics(tmp_path):
    options = _masked(tmp_path, encoded.encode(_three_values()))
    rule = mask_rules.parse("1", ignore="255")
    raw = image_folder.read_raw(str(tmp_path / "images"), mask_rule=rule, **options)
    records.prepare("pets", lambda scratch: raw, tmp_path / "out")
    test = load.load(str(tmp_path / "out"), "pets")["test"]
    np.testing.assert_array_equal(test.read_mask(0), _three_values() == 1)
    np.testing.assert_array_equal(test.read_ignored(0), _three_values() == 255)

    def predict(images):  # the columns 0 to 15: right, but for the four columns that do not count
        columns = np.arange(images.shape[2]) - 8  # images of 48 columns are padded to 64
        masks = np.broadcast_to(columns < 16, images.shape[:3]).astype(np.float32)[..., None]
        return Prediction(np.full((len(images), 2), 0.5), masks, {})

    rows = evaluation.evaluate(predict, test, [dice.evaluator()])
    # 12 columns of 44 that count are foreground.
    assert {(row["f1_foreground"], row["f1_background"]) for row in rows} == {(1, 1)}
    assert rows[0]["all_ones_f1_foreground"] == pytest.approx(24 / 56)


def test_a_mask_in_the_alpha_channel(tmp_path):
    values = np.uint8(_three_values() > 1) * 255
    options = _masked(tmp_path, encoded.encode(_in_alpha(values)))
    raw = image_folder.read_raw(str(tmp_path / "images"), mask_rule=mask_rules.parse("alpha"), **options)
    record = raw_dataset.read_record(raw.splits["train"][0], raw)
    np.testing.assert_array_equal(image_files.read_rgb(record["mask"], "mask")[..., 0], values)
    own_layout.put("masks/cat/0.png", encoded.encode(values))(tmp_path)
    with pytest.raises(dataset.DataError, match="cat/0.png: A mask has no alpha channel"):
        for item in raw:
            raw_dataset.read_record(item, raw)


@pytest.mark.parametrize("ignore", ["white", "1,", ">200"])
def test_ignored_values_that_are_none(ignore):
    with pytest.raises(UserError, match="ignore=.* must be values, such as '255'"):
        mask_rules.parse(">0", ignore=ignore)


def test_two_images_of_one_mask(tmp_path):
    options = _masked(tmp_path, encoded.encode(_three_values()))
    own_layout.put("images/cat/1.jpg", encoded.encode(own_layout.pixels(8), "JPEG"))(tmp_path)
    with pytest.raises(dataset.DataError, match="1.jpg and .*1.png are images of one mask, .*masks/cat/1.png"):
        _read(tmp_path / "images", **options)
    assert len(list(_read(tmp_path / "images"))) == 9


def test_one_training_image_of_a_class_and_none_that_validates(tmp_path):
    names = ("train/cat/0.png", "train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png")
    _images(tmp_path / "images", *names)
    records.prepare("pets", lambda scratch: _read(tmp_path / "images"), tmp_path / "out")
    with pytest.raises(dataset.DataError, match="The class 'dog' has one training image"):
        load.load(str(tmp_path / "out"), "pets")
