"""Malformed inputs, from a table: what is said of each, what --skip_bad makes of it, and what is left behind."""

import errno
import os
import pathlib
import resource
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from minmax_jax.base.errors import UserError
from minmax_jax.data import load
from minmax_jax.data.importing import cub, glas, problems, records, summary
from tests import bad_inputs, cub_layout, encoded, glas_layout, own_layout, programs

# Pillow warns of some files before it refuses them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return own_layout.write(tmp_path_factory.mktemp("good"))


@pytest.fixture
def root(good, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(good, tmp_path / "source")


def _prepare(read, root, **options):
    return records.prepare("pets", lambda scratch: read(root), root.parent / "out", **options).folder


def _left(root):
    return list((root.parent / "out" / "pets").glob("*"))


@pytest.mark.parametrize("case", bad_inputs.CASES, ids=lambda case: case.name)
def test_bad_input(root, case):
    case.spoil(root)
    with pytest.raises(UserError, match=case.message) as caught:
        _prepare(case.read, root)
    assert not _left(root)
    if not case.skipped:
        with pytest.raises(UserError, match=case.message):
            _prepare(case.read, root, skip_bad=True)
        assert not _left(root)
        return
    assert str(caught.value).startswith("1 problem:\n")
    assert str(caught.value).endswith("\nNothing was prepared. skip_bad leaves these images out.")
    folder = _prepare(case.read, root, skip_bad=True)
    records.check(str(root.parent / "out"), "pets")
    parts = load.read_splits(str(root.parent / "out"), "pets")
    assert {split: len(part) for split, part in parts.items()} == bad_inputs.NUM_KEPT | case.kept
    (fault,) = problems.read(folder)
    assert fault.split == case.skipped and f"{fault.split}: {fault.reason}" in str(caught.value)
    table = summary.describe(str(root.parent / "out"), "pets")
    assert table.endswith(f"\nLeft out: 1 image ({fault.split} 1); see {folder / 'skipped.csv'}.")


@pytest.mark.parametrize("read", [own_layout.read_folders, own_layout.read_lists, own_layout.read_tiles])
def test_a_good_one_is_left_as_it_is(root, read):
    folder = _prepare(read, root, skip_bad=True)
    assert not (folder / "skipped.csv").exists()
    assert "Left out" not in summary.describe(str(root.parent / "out"), "pets")


def test_several_are_listed_by_split(root, caplog):
    own_layout.put("images/test/dog/1.png", b"")(root)
    own_layout.put("images/train/dog/0.png", b"")(root)
    own_layout.put("masks/train/dog/2.png", b"")(root)
    folder = _prepare(own_layout.read_folders, root, skip_bad=True)
    assert [(fault.split, fault.name) for fault in problems.read(folder)] == [
        ("train", "train/dog/0.png"),
        ("train", "train/dog/2.png"),
        ("test", "test/dog/1.png"),
    ]
    assert "Left out 3 images (train 2, test 1)" in caplog.text
    assert "Left out: 3 images (train 2, test 1)" in summary.describe(str(root.parent / "out"), "pets")


def test_masks_without_foreground_are_kept_and_counted(root):
    for path in (own_layout.BAD, "test/cat/0.png", "test/dog/1.png"):
        own_layout.put(f"masks/{path}", encoded.encode(np.zeros((40, 48), np.uint8)))(root)
    _prepare(own_layout.read_folders, root)
    table = summary.describe(str(root.parent / "out"), "pets")
    assert table.endswith("\nMasks without any foreground: train 1, test 2.")
    assert len(load.load(str(root.parent / "out"), "pets")["train"]) == 6


@pytest.mark.parametrize(
    "read, folder",
    [
        (own_layout.read_folders, "images/train/cat"),
        (own_layout.read_folders, "masks/train/cat"),
        (own_layout.read_lists, "lists"),
    ],
)
def test_folders_without_the_right_to_read(root, read, folder, monkeypatch):
    """Imitated, as root may read everything."""

    def refuse(function):
        def refusing(path, *arguments):
            if os.fspath(path) == str(root / folder):
                raise PermissionError(errno.EACCES, "Permission denied", str(root / folder))
            return function(path, *arguments)

        return refusing

    monkeypatch.setattr(os, "listdir", refuse(os.listdir))
    monkeypatch.setattr(os, "scandir", refuse(os.scandir))
    for skip_bad in (False, True):
        with pytest.raises(UserError, match=rf"{folder} cannot be read \(Permission denied\). Change its permissions"):
            _prepare(read, root, skip_bad=skip_bad)
    assert not _left(root)


def test_files_without_the_right_to_read(root, monkeypatch):
    read_bytes = pathlib.Path.read_bytes

    def refuse(path):
        if path == root / "images" / own_layout.BAD:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"train/cat/1.png cannot be read \(.*Permission denied"):
        _prepare(own_layout.read_folders, root)
    assert len(problems.read(_prepare(own_layout.read_folders, root, skip_bad=True))) == 1


def test_a_disk_that_is_full(root):
    """The limit on the size of a file stands for it: it stops the same writer, in the same place."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"out/pets cannot be written \(.*too large.*\). .* Make room"):
            _prepare(own_layout.read_folders, root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not _left(root)
    _prepare(own_layout.read_folders, root)
    records.check(str(root.parent / "out"), "pets")


@pytest.mark.parametrize("place", ["read", "write", "list"])
def test_a_disk_that_is_full_at_other_times(root, monkeypatch, place):
    """While archives are unpacked, the description or the list of what was skipped is written."""

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    own_layout.put(f"images/{own_layout.BAD}", b"")(root)
    read = fail if place == "read" else own_layout.read_folders
    with monkeypatch.context() as patch:
        if place == "write":
            patch.setattr(tfds.core.DatasetInfo, "write_to_directory", fail)
        if place == "list":
            patch.setattr(problems, "write", fail)
        with pytest.raises(UserError, match=r"out/pets cannot be written \(.*No space left on device; .*MiB are free"):
            _prepare(read, root, skip_bad=True)
    assert not _left(root)
    _prepare(own_layout.read_folders, root, skip_bad=True)
    records.check(str(root.parent / "out"), "pets")


@pytest.mark.parametrize("kept", [None, 0, 0.5])
@pytest.mark.parametrize(
    "file",
    [
        "dataset_info.json",
        "features.json",
        "label.labels.txt",
        *(f"pets-{s}.array_record-00000" for s in load.SPLITS),
    ],
)
def test_half_of_what_was_prepared_is_not_taken_for_whole(root, file, kept):
    path = _prepare(own_layout.read_folders, root) / file
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[: int(kept * len(content))])
    _prepare(own_layout.read_folders, root)
    with pytest.raises(UserError, match=r"pets/2.0.0 is damaged \(.*\). Delete it and prepare it again"):
        summary.describe(str(root.parent / "out"), "pets")


def test_official_releases_skip_alike(tmp_path):
    official = glas_layout.write(tmp_path)
    (official / "train_5.bmp").write_bytes(b"")
    (official / "testA_1_anno.bmp").unlink()
    folder = records.prepare(
        "glas", lambda scratch: glas.read_raw(str(tmp_path)), tmp_path / "out", skip_bad=True
    ).folder
    assert [fault.name for fault in problems.read(folder)] == ["train_5", "testA_1"]
    parts = load.read_splits(str(tmp_path / "out"), "glas")
    assert {split: len(part) for split, part in parts.items()} == {"train": 84, "test": 79}


@pytest.mark.parametrize("skip_bad", [False, True])
def test_official_splits_keep_what_is_in_two_of_them(tmp_path, caplog, skip_bad):
    """All of these birds are one."""
    images = [("019.Gray_Catbird", f"a{i}", i < 8) for i in range(16)] + [
        ("099.Ovenbird", f"b{i}", i < 8) for i in range(9)
    ]
    cub_layout.write(tmp_path / "official", images)
    records.prepare(
        "cub", lambda scratch: cub.read_raw([str(tmp_path / "official")], scratch), tmp_path, skip_bad=skip_bad
    )
    assert len(load.read_splits(str(tmp_path), "cub")["train"]) == 16
    assert (
        "16 images of these official splits are in two of them and are kept: 'a0' (train) is 'a8' (test); "
        in caplog.text
    )
    assert "; 'a4' (train) is 'a8' (test) and others." in caplog.text


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: text.replace("train_3,", "train_2,", 1), "Grade.csv lists 'train_2' twice"),
        (lambda text: text.replace("healthy", "gr\udcf6\udcdf", 1), "Grade.csv is not UTF-8 text"),
    ],
)
def test_damaged_grades(tmp_path, damage, message):
    path = glas_layout.write(tmp_path) / "Grade.csv"
    path.write_text(damage(path.read_text()), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        glas.read_raw(str(tmp_path))


def test_a_damaged_zip_file(tmp_path):
    official = glas_layout.write(tmp_path / "official")
    content = (official / "train_7.bmp").read_bytes()
    archive = pathlib.Path(shutil.make_archive(str(tmp_path / "release"), "tar", official.parent)).with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in official.iterdir():
            file.write(path, path.relative_to(official.parent))
    archive.write_bytes(archive.read_bytes().replace(content[60:], content[61:] + b"x", 1))
    with pytest.raises(UserError, match=r"train_7.bmp cannot be read \(Bad CRC-32"):
        own_layout.check(glas.read_raw(str(archive)))


def _run(root, *flags):
    places = (f"--source={root / 'images'}", f"--masks={root / 'masks'}", f"--data_dir={root.parent / 'out'}")
    flags = ("--dataset=image_folder", "--name=pets", *flags, *places)
    return programs.run("prepare-data", *flags, ignore_warnings=True)


def test_the_program(root):
    own_layout.put(f"images/{own_layout.BAD}", own_layout.half("JPEG"))(root)
    own_layout.rename("images/test/dog/1.png", b"images/test/dog/\xff.png")(root)
    done = _run(root)
    assert done.returncode == 1 and "Traceback" not in done.stderr and not _left(root)
    error = done.stderr[done.stderr.index("Error: ") :].splitlines()
    assert error[0] == "Error: 2 problems:"
    assert error[2].startswith(f"  test: {root}/images/test/dog/\\xff.png has a name that is not UTF-8.")
    assert error[1].startswith(f"  train: {root}/images/{own_layout.BAD} cannot be read as an image (")
    assert error[3] == "Nothing was prepared. skip_bad leaves these images out."
    for flag, message in (
        (f"--folds={root}", f"--folds={root} is for --dataset=csv. Leave it out."),
        ("--tile_scale=0.5", "--tile_scale=0.5 is for tiles, --tile_size. Leave it out."),
    ):
        done = _run(root, flag)
        assert done.returncode == 1 and message in done.stderr
    assert not _left(root)
    (root.parent / "out").mkdir(exist_ok=True)
    (root.parent / "out/pets").symlink_to(root / "images")
    done = _run(root)
    assert done.returncode == 1 and "/out/pets', which holds" in done.stderr and "another data_dir" in done.stderr
    (root.parent / "out/pets").unlink()
    done = _run(root, "--skip_bad")
    assert done.returncode == 0, done.stderr
    assert f"\nLeft out: 2 images (train 1, test 1); see {root.parent}/out/pets/2.0.0/skipped.csv.\n" in done.stdout
