"""Preparing and loading GlaS, from a made-up release in the official layout, and what goes wrong."""

import dataclasses
import io
import pickle
import re
import shutil
import zipfile

from minmax_jax.configs import custom
from minmax_jax.configs import glas as glas_config
import numpy as np
from PIL import Image
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.data import load
from minmax_jax.data.importing import glas, raw_dataset, record_files, records, summary
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building import options as options_lib
from tests import glas_layout, own_layout


def _prepare(source, data_dir):
    return records.prepare("glas", lambda scratch: glas.read_raw(str(source)), data_dir).folder


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """The official folder."""
    return glas_layout.write(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def data_dir(official, tmp_path_factory):
    """What prepare_data wrote."""
    data_dir = tmp_path_factory.mktemp("prepared")
    _prepare(official.parent, data_dir)
    return str(data_dir)


def test_published_sizes_and_classes(data_dir):
    parts = load.load(data_dir, "glas")
    assert {name: len(part) for name, part in parts.items()} == {"train": 67, "validation": 18, "test": 80}
    assert parts["test"].class_names == ("benign", "malignant")
    for part in parts.values():
        expected = [glas.CLASS_NAMES.index(glas_layout.class_of(name)) for name in part.names]
        np.testing.assert_array_equal(part.labels, expected)
    assert not set(parts["train"].names) & set(parts["validation"].names)
    assert all(name.startswith("test") for name in parts["test"].names)


def test_pixels_and_masks_come_through(data_dir, official):
    for part in load.load(data_dir, "glas").values():
        for index in (0, len(part) - 1):
            name = part.names[index]
            place = glas_layout.NAMES.index(name)
            image = np.asarray(Image.open(official / f"{name}.bmp"))
            np.testing.assert_array_equal(part.read_image(index), image)
            np.testing.assert_array_equal(part.read_mask(index), glas_layout.mask_of(place, image.shape[:2]))
            glands = part.read_instances(index)
            np.testing.assert_array_equal(glands, glas_layout.glands_of(place, image.shape[:2]))
            assert glands.dtype == np.int32
            assert tuple(part.sizes[index]) == glas_layout.size_of(place)


def test_splits_can_be_sent_to_workers(data_dir):
    part = load.load(data_dir, "glas")["validation"]
    copy = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(copy.read_image(3), part.read_image(3))
    np.testing.assert_array_equal(copy.read_instances(3), part.read_instances(3))


def test_published_folds(data_dir, tmp_path):
    rows = {
        "train": glas_layout.NAMES[:67],
        "valid": glas_layout.NAMES[67:85],
        "test": glas_layout.NAMES[85:],
    }
    for name, names in rows.items():
        lines = [f"{image}.bmp,{image}_anno.bmp,{glas_layout.class_of(image)}\n" for image in names]
        (tmp_path / f"{name}_s_0_f_0.csv").write_text("".join(lines))
    parts = load.load(data_dir, "glas", folds_dir=str(tmp_path))
    assert [list(part.names) for part in parts.values()] == list(rows.values())


def test_patients_are_kept_and_can_be_kept_apart(data_dir):
    released = load.load(data_dir, "glas")
    for part in released.values():
        expected = [glas_layout.patient_of(glas_layout.NAMES.index(name)) for name in part.names]
        assert list(part.patients) == expected
    assert set(released["train"].patients) & set(released["test"].patients)
    parts = load.load(data_dir, "glas", split="patients", seed=3)
    assert sorted(name for part in parts.values() for name in part.names) == sorted(glas_layout.NAMES)
    patients = [set(part.patients) for part in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 16
    assert all(set(part.labels) == {0, 1} for part in parts.values())
    assert 75 <= len(parts["test"]) <= 90
    config = glas_config.get_config()
    config.data.update({"dir": data_dir, "split": "patients", "validation_seed": 3})
    assert data_splits.create_splits(options_lib.read(config).data)["test"].names == parts["test"].names


def test_an_earlier_preparation_without_patients_and_glands_can_be_read(official, tmp_path, monkeypatch):
    def features(class_names):
        kept = {name: kind for name, kind in all_features(class_names).items() if name not in ("patient", "instances")}
        return tfds.features.FeaturesDict(kept)

    def read_record(item, raw):
        record = read(item, raw)
        del record["patient"], record["instances"]
        yield record

    tfds = pytest.importorskip("tensorflow_datasets")
    all_features, read = record_files.features, raw_dataset.read_record
    monkeypatch.setattr(record_files, "features", features)
    records.prepare(
        "glas", lambda _: dataclasses.replace(glas.read_raw(str(official)), read_records=read_record), tmp_path
    )
    test = load.load(str(tmp_path), "glas")["test"]
    assert len(test) == 80 and test.read_mask(79).any() and test.read_instances(79) is None
    records.check(str(tmp_path), "glas")
    assert "Objects" not in summary.describe(str(tmp_path), "glas")
    with pytest.raises(UserError, match="split='patients' needs the patient .* prepare it again"):
        load.load(str(tmp_path), "glas", split="patients")


def test_a_zip_file_will_do(official, tmp_path):
    shutil.make_archive(str(tmp_path / "release"), "zip", official.parent)
    found = glas.read_raw(str(tmp_path / "release.zip"))
    own_layout.check(found)
    items = {item.name: item for item in found}
    record = raw_dataset.read_record(items["testA_7"], found)
    mask = np.asarray(Image.open(io.BytesIO(record["mask"])))
    np.testing.assert_array_equal(mask, glas_layout.mask_of(glas_layout.NAMES.index("testA_7"), record["size"]))
    assert len(items) == 165


def test_leftovers_of_a_killed_run_are_removed(official, tmp_path):
    leftover = tmp_path / "glas" / "incomplete.ABC123_1.0.0"
    leftover.mkdir(parents=True)
    (leftover / "glas-train.array_record-00000-of-00001").write_bytes(b"half")
    with pytest.raises(UserError, match="holds no prepared 'glas' dataset"):
        load.load(str(tmp_path), "glas")
    _prepare(official, tmp_path)
    assert not leftover.exists() and len(load.load(str(tmp_path), "glas")["test"]) == 80


def test_preparing_again_changes_nothing(official, data_dir):
    before = {path: path.stat().st_mtime_ns for path in (official / data_dir).rglob("*array_record*")}
    _prepare(official, data_dir)
    assert before == {path: path.stat().st_mtime_ns for path in (official / data_dir).rglob("*array_record*")}


def _truncate(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def _save(folder, name, shape):
    Image.fromarray(np.zeros(shape, np.uint8)).save(folder / name)


def _edit_grades(old, new):
    def edit(folder):
        path = folder / "Grade.csv"
        path.write_text(path.read_text().replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: _truncate(f, "train_5.bmp"), "train_5.bmp cannot be read as an image"),
        (lambda f: _truncate(f, "testB_3_anno.bmp"), "testB_3_anno.bmp cannot be read as an image"),
        (lambda f: (f / "train_6.bmp").write_text("no image"), "train_6.bmp cannot be read as an image"),
        (lambda f: (f / "train_6.bmp").write_bytes(b""), "train_6.bmp cannot be read as an image"),
        (lambda f: (f / "train_7.bmp").unlink(), "train_7.bmp is missing"),
        (lambda f: (f / "train_7_anno.bmp").unlink(), "train_7_anno.bmp is missing"),
        (lambda f: _save(f, "train_8_anno.bmp", (40, 33)), r"train_8_anno.bmp has \(40, 33\) pixels"),
        (lambda f: [_save(f, f"train_9{end}.bmp", (31, 50)) for end in ("", "_anno")], "needs at least 32"),
        (
            lambda f: _save(f, "train_86.bmp", (40, 40, 3)),
            "train_86.bmp has no class: it is not in Grade.csv",
        ),
        (_edit_grades("train_3,2, malignant", "train_3,2, dubious"), "'train_3' the class 'dubious'"),
        (_edit_grades("train_4,3, benign, healthy\n", ""), "train_4.bmp has no class"),
        (
            _edit_grades("train_4,3, benign, healthy\n", ""),
            "lists 84 train images; the official dataset has 85",
        ),
        (_edit_grades("grade (GlaS)", "verdict"), "needs the columns"),
        (lambda f: (f / "Grade.csv").write_text(""), "needs the columns"),
        (lambda f: (f / "Grade.csv").unlink(), "holds no Grade.csv"),
    ],
)
def test_a_damaged_release_is_refused_and_leaves_nothing_behind(official, tmp_path, damage, message):
    copy = tmp_path / "copy"
    shutil.copytree(official, copy)
    damage(copy)
    with pytest.raises(UserError, match=message):
        _prepare(copy, tmp_path / "out")
    with pytest.raises(UserError, match="holds no prepared"):
        load.load(str(tmp_path / "out"), "glas")


def test_all_problems_are_listed_at_once(official, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(official, copy)
    _truncate(copy, "train_5.bmp")
    (copy / "testA_1_anno.bmp").unlink()
    with pytest.raises(UserError, match=r"(?s)train_5.bmp cannot.*testA_1_anno.bmp is missing"):
        own_layout.check(glas.read_raw(str(copy)))


def test_sources_that_are_none(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        glas.open_source(str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="neither a folder nor a ZIP file"):
        glas.open_source(str(tmp_path / "file"))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(UserError, match="holds no Grade.csv"):
        glas.open_source(str(tmp_path / "empty.zip"))


def test_an_unprepared_dataset_names_the_command():
    with pytest.raises(UserError, match="^dir='' holds no prepared 'glas' dataset"):
        load.load("", "glas")
    with pytest.raises(UserError, match="(?s)^config.data.dir=''.* --dataset=glas .*--config.data.dir=DIR"):
        data_splits.create_splits(options_lib.read(glas_config.get_config()).data)


def test_an_unprepared_dataset_of_one_s_own_names_the_command():
    with pytest.raises(UserError, match="(?s)^config.data.dir=''.* --dataset=image_folder --name=pets --source"):
        data_splits.create_splits(options_lib.read(custom.get_config("pets")).data)


def test_what_another_version_prepared_is_prepared_again(tmp_path):
    (tmp_path / "glas" / "1.0.0").mkdir(parents=True)
    (tmp_path / "glas" / "1.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match=r"of version 2.0.0, only of 1.0.0, by another version of this library"):
        load.load(str(tmp_path), "glas")


@pytest.mark.parametrize("file", ["dataset_info.json", "glas-test.array_record-00000"])
def test_damaged_records_are_told(data_dir, tmp_path, file):
    shutil.copytree(data_dir, tmp_path / "copy")
    _truncate(tmp_path / "copy" / "glas" / "2.0.0", file)
    with pytest.raises(UserError, match=r"2.0.0 is damaged .* Delete it and prepare it again"):
        load.load(str(tmp_path / "copy"), "glas")


def test_the_table_of_a_prepared_dataset(data_dir):
    table = summary.describe(data_dir, "glas")
    assert re.search(r"train +85 +2 +85 +0 .*benign 42, malignant 43", table)
    assert "Annotated instances: train 170, test 160." in table
    records.check(data_dir, "glas")


@pytest.mark.shared
def test_all_ones_baseline_of_the_real_test_set(shared, tmp_path):
    """The published 66.01: loader, fold and metric are right."""
    import subprocess
    import sys

    subprocess.run([sys.executable, shared / "data" / "unpack.py", tmp_path], check=True, capture_output=True)
    _prepare(tmp_path, tmp_path / "out")
    parts = load.load(str(tmp_path / "out"), "glas", folds_dir=str(shared / "data" / "folds" / "glas"))
    assert {name: len(part) for name, part in parts.items()} == {"train": 67, "validation": 18, "test": 80}
    shares = np.array([parts["test"].read_mask(index).mean() for index in range(80)])
    assert 100 * np.mean(2 * shares / (1 + shares)) == pytest.approx(66.015, abs=0.005)
