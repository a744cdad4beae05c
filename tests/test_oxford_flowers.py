"""Oxford Flowers 102 from made-up releases in the official layout, and what goes wrong."""

import csv
import io
import itertools
import shutil
import tarfile

import numpy as np
from PIL import Image
import pytest
import scipy.io

from minmax_jax.base.errors import UserError
from minmax_jax.data import load
from minmax_jax.data.importing import cub, oxford_flowers, raw_dataset, records
from tests import encoded, flowers_layout

LABELS = np.array([3, 1, 2, 3, 2, 1, 1])
IDS = {"trnid": np.array([6, 1]), "valid": np.array([2]), "tstid": np.array([3, 5, 4, 7])}


@pytest.fixture
def official(tmp_path):
    return flowers_layout.write(tmp_path / "official", LABELS, IDS)


def _prepare(sources, data_dir):
    read_raw = lambda scratch: oxford_flowers.read_raw([str(source) for source in sources], scratch)
    return records.prepare("oxford_flowers", read_raw, data_dir).folder


def test_official_splits_labels_and_masks(official, tmp_path):
    _prepare([official], tmp_path)
    parts = load.load(str(tmp_path), "oxford_flowers")
    assert {name: part.names for name, part in parts.items()} == {
        "train": ("image_00001", "image_00006"),
        "validation": ("image_00002",),
        "test": ("image_00003", "image_00004", "image_00005", "image_00007"),
    }
    test = parts["test"]
    assert test.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(test.labels, [1, 2, 1, 0])
    np.testing.assert_array_equal(test.read_mask(1), flowers_layout.mask_of(4))
    jpeg = np.asarray(Image.open(official / "jpg" / "image_00004.jpg"))
    np.testing.assert_array_equal(test.read_image(1), jpeg)
    assert test.read_boxes(1).shape == (0, 4)


def test_images_are_kept_as_they_are_encoded_and_masks_take_one_bit(official, tmp_path):
    found = oxford_flowers.read_raw([str(official)], tmp_path)
    record = raw_dataset.read_record(found.splits["validation"][0], found)
    assert record["image"] == (official / "jpg" / "image_00002.jpg").read_bytes()
    assert Image.open(io.BytesIO(record["mask"])).mode == "1"


@pytest.mark.parametrize("together", [True, False])
def test_archives_will_do_and_leave_nothing_behind(official, tmp_path, together):
    archives = tmp_path / "archives"
    archives.mkdir()
    for part, archive in oxford_flowers.PARTS.items():
        if part == archive:
            shutil.copy(official / part, archives)
        else:
            with tarfile.open(archives / archive, "w:gz") as tar:
                tar.add(official / part, part)
    folder = _prepare([archives] if together else sorted(archives.iterdir()), tmp_path / "out")
    assert len(load.load(str(tmp_path / "out"), "oxford_flowers")["test"]) == 4
    assert list(folder.parent.iterdir()) == [folder]


def test_every_part_has_an_address():
    assert {file.name for file in oxford_flowers.FILES} == set(oxford_flowers.PARTS.values())
    assert {file.name for file in cub.FILES} == set(cub.PARTS.values())


def test_the_published_rule_of_the_masks():
    """Subtract (0, 0, 254), not below 0; foreground is what is left."""
    colors = [[0, 0, 254], [0, 0, 255], [1, 0, 0], [0, 1, 254], [0, 0, 200], [0, 0, 0]]
    np.testing.assert_array_equal(
        oxford_flowers.is_flower(np.array([colors], np.uint8)), [[False, True, True, True, False, False]]
    )
    np.testing.assert_array_equal(
        oxford_flowers.is_flower(np.uint8([[0, 127, 128, 255]])), [[False, False, True, True]]
    )


def test_the_default_rule_of_the_masks_leaves_out_what_is_near_the_blue():
    # At distances 0, 1, 60, 61, 65 (20, 20 and 58 squared are 4164) and 254.
    colors = [[0, 0, 254], [0, 0, 255], [60, 0, 254], [61, 0, 254], [20, 20, 196], [0, 0, 0]]
    np.testing.assert_array_equal(
        oxford_flowers.is_far_from_blue(np.array([colors], np.uint8)), [[False, False, False, True, True, True]]
    )
    np.testing.assert_array_equal(
        oxford_flowers.is_far_from_blue(np.uint8([[0, 127, 128, 255]])), [[False, False, True, True]]
    )


@pytest.mark.parametrize("quality", [75, 90, 95])
def test_masks_as_jpeg_have_the_share_of_the_flower(quality):
    rows, columns = np.ogrid[:200, :240]
    flower = (rows - 90) ** 2 + (columns - 130) ** 2 < 60**2
    noise = np.random.default_rng(0).integers(-30, 31, (200, 240, 1))
    colors = np.where(flower[..., None], np.array([220, 90, 160]) + noise, [0, 0, 254]).astype(np.uint8)
    with Image.open(io.BytesIO(encoded.encode(colors, "JPEG", quality=quality))) as picture:
        values = np.asarray(picture)
    found = [rule(values) for rule in (oxford_flowers.is_far_from_blue, oxford_flowers.is_flower)]
    near, published = (2 * np.sum(flower & mask) / (np.sum(flower) + np.sum(mask)) for mask in found)
    assert near > 0.97 > 0.95 > published


def test_the_published_rule_by_name(official, tmp_path):
    for foreground, rule in (("", oxford_flowers.is_far_from_blue), ("published", oxford_flowers.is_flower)):
        found = oxford_flowers.read_raw([str(official)], tmp_path, foreground=foreground)
        assert found.mask_rule.is_foreground is rule
    with pytest.raises(UserError, match="foreground='>0' must be 'published' for oxford_flowers, or left out"):
        oxford_flowers.read_raw([str(official)], tmp_path, foreground=">0")


def _damage_type(folder):
    """A type of values that there is not: SciPy 1.17 ends the process."""
    content = (folder / "imagelabels.mat").read_bytes()
    (folder / "imagelabels.mat").write_bytes(content.replace(b"labels\0\0\2", b"labels\0\0\0"))


def _change_mat(name, key, values):
    def change(folder):
        content = scipy.io.loadmat(folder / name)
        kept = {name: value for name, value in content.items() if not name.startswith("__")}
        scipy.io.savemat(folder / name, kept | {key: np.array([values])})

    return change


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: shutil.rmtree(f / "segmim"), "has no 'segmim' or '102segmentations.tgz'. Get it from https"),
        (lambda f: (f / "setid.mat").unlink(), "has no 'setid.mat'. Get it from https"),
        (lambda f: (f / "setid.mat").write_text("text"), "cannot be read as a MATLAB file with trnid, valid, tstid"),
        (lambda f: scipy.io.savemat(f / "imagelabels.mat", {"label": [1]}), "as a MATLAB file with labels"),
        (_damage_type, r"imagelabels.mat cannot be read as a MATLAB file with labels \("),
        (_change_mat("setid.mat", "valid", [2, 1]), "must name each of the 7 images of imagelabels.mat once"),
        (_change_mat("setid.mat", "valid", [8]), "must name each of the 7 images"),
        (_change_mat("imagelabels.mat", "labels", [4, 1, 2, 4, 2, 1, 1]), "must hold each label from 1 to 4"),
        (lambda f: (f / "jpg" / "image_00005.jpg").unlink(), "image_00005.jpg is missing"),
        (lambda f: (f / "jpg" / "image_00005.jpg").write_bytes(b""), "image_00005.jpg cannot be read as an image"),
        (
            lambda f: (f / "segmim" / "segmim_00005.jpg").write_bytes(encoded.encode(np.ones((40, 34), np.uint8))),
            r"segmim_00005.jpg has \(40, 34\) pixels \(height, width\), its image .*image_00005.jpg \(34, 40\)",
        ),
    ],
)
def test_a_damaged_release_is_refused(official, tmp_path, damage, message):
    damage(official)
    with pytest.raises(UserError, match=message):
        _prepare([official], tmp_path / "out")
    assert not list(tmp_path.glob("out/oxford_flowers/*"))


@pytest.mark.slow
@pytest.mark.shared
def test_published_folds_of_the_full_release(shared, tmp_path):
    """The 8,189 names and classes, in the layout of the release; the images are made up."""
    folder = shared / "data" / "folds" / "Oxford-flowers-102"
    rows = {}
    for split, key in (("train", "trnid"), ("valid", "valid"), ("test", "tstid")):
        (path,) = folder.rglob(f"{split}*.csv")
        with path.open(newline="") as file:
            rows[key] = [(int(image[-9:-4]), int(class_name)) for image, _, class_name in csv.reader(file)]
    labels = np.zeros(8189, int)
    for number, class_name in itertools.chain(*rows.values()):
        labels[number - 1] = class_name + 1
    ids = {key: np.array([number for number, _ in part]) for key, part in rows.items()}
    _prepare([flowers_layout.write(tmp_path / "official", labels, ids)], tmp_path)
    parts = load.load(str(tmp_path), "oxford_flowers", folds_dir=str(folder))
    official = load.load(str(tmp_path), "oxford_flowers")
    assert {name: len(part) for name, part in parts.items()} == {"train": 1020, "validation": 1020, "test": 6149}
    for name, part in parts.items():
        assert set(part.names) == set(official[name].names) and len(set(part.labels)) == 102
