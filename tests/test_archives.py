"""Archives that are whole, damaged or hostile."""

import errno
import io
import pathlib
import tarfile
import zipfile

import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.data.importing import archives


def _tar(path, members, mode="w:gz"):
    """Members are (name, content), or (name, type, target) for links."""
    with tarfile.open(path, mode) as tar:
        for name, *rest in members:
            info = tarfile.TarInfo(name)
            if len(rest) == 2:
                info.type, info.linkname = rest
                tar.addfile(info)
            else:
                info.size = len(rest[0])
                tar.addfile(info, io.BytesIO(rest[0]))
    return path


def _zip(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, content)
    return path


def _files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_come_out_whatever_the_compression_and_links_do_not(tmp_path, mode):
    members = [
        ("./images/a.jpg", b"one"),
        ("images/b.jpg", b"two"),
        ("images/link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ("images/hard.jpg", tarfile.LNKTYPE, "../../secret"),
        ("images/pipe", tarfile.FIFOTYPE, ""),
    ]
    archives.unpack(_tar(tmp_path / "archive", members, mode), tmp_path / "out")
    assert _files(tmp_path / "out") == {"images/a.jpg", "images/b.jpg"}
    assert (tmp_path / "out/images/b.jpg").read_bytes() == b"two"


def test_files_of_zip_archives_come_out_and_links_do_not(tmp_path):
    members = [
        ("images/a.jpg", b"one", 0o100644),
        ("images/link.jpg", b"/etc/passwd", 0o120777),
        ("empty/", b"", 0o40755),
    ]
    archives.unpack(_zip(tmp_path / "archive.zip", members), tmp_path / "out")
    assert _files(tmp_path / "out") == {"images/a.jpg"}


@pytest.mark.parametrize("name", ["../outside", "images/../../outside", "/tmp/outside", "..\\outside", "C:\\outside"])
@pytest.mark.parametrize("write", [_tar, lambda path, members: _zip(path, [(*m, 0o100644) for m in members])])
def test_no_file_is_written_outside(tmp_path, name, write):
    (tmp_path / "deep").mkdir()
    archive = write(tmp_path / "deep" / "archive", [("a", b"one"), (name, b"two")])
    with pytest.raises(UserError, match=r"a file outside its folder: do not trust it"):
        archives.unpack(archive, tmp_path / "deep" / "out")
    assert _files(tmp_path) == {"deep/archive", "deep/out/a"}
    assert not pathlib.Path("/tmp/outside").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_cut_archive_is_named(tmp_path, mode, share):
    content = bytes(range(256)) * 200
    path = _tar(tmp_path / "archive.tgz", [("a", content), ("b", content[::-1])], mode)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"archive.tgz cannot be unpacked as a ZIP or tar archive \(.+\)\. Download"):
        archives.unpack(path, tmp_path / "out")


def test_a_zip_file_with_a_wrong_checksum_is_named(tmp_path):
    path = _zip(tmp_path / "archive.zip", [("a", b"some content", 0o100644)])
    path.write_bytes(path.read_bytes().replace(b"some content", b"same content"))
    with pytest.raises(UserError, match=r"archive.zip cannot be unpacked as a ZIP or tar archive \(Bad CRC-32"):
        archives.unpack(path, tmp_path / "out")


def test_an_encrypted_zip_file_is_named(tmp_path):
    path = _zip(tmp_path / "archive.zip", [("a", b"some content", 0o100644)])
    content = bytearray(path.read_bytes())
    # The first flag, in the header of the file and in the directory.
    content[6] = content[content.index(b"PK\x01\x02") + 8] = 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"archive.zip cannot be .*\(File .*'a'.* is encrypted.*unpack it by"):
        archives.unpack(path, tmp_path / "out")


def _find(sources, tmp_path):
    return archives.find(
        [str(source) for source in sources], "jpg", archive="x.tgz", scratch=tmp_path / "s", homepage="https://h"
    )


def test_parts_are_found_in_folders_and_archives(tmp_path):
    (tmp_path / "one" / "jpg").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    archive = _tar(tmp_path / "two" / "x.tgz", [("jpg/a", b"one")])
    assert _find([tmp_path / "one"], tmp_path) == tmp_path / "one" / "jpg"
    assert _find([tmp_path / "one" / "jpg"], tmp_path) == tmp_path / "one" / "jpg"
    # What is unpacked already is not unpacked again.
    assert _find([tmp_path / "two", tmp_path / "one"], tmp_path) == tmp_path / "one" / "jpg"
    assert not (tmp_path / "s").exists()
    assert _find([archive], tmp_path) == tmp_path / "s" / "x.tgz" / "jpg"


def test_parts_that_are_missing(tmp_path):
    with pytest.raises(UserError, match=r"nowhere' does not exist. Get the dataset from https://h"):
        _find([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(UserError, match=r"has no 'jpg' or 'x.tgz'. Get it from https://h"):
        _find([tmp_path], tmp_path)
    _tar(tmp_path / "x.tgz", [("png/a", b"one")])
    with pytest.raises(UserError, match=r"x.tgz holds no 'jpg' at its top. Get it again from https://h"):
        _find([tmp_path], tmp_path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_whose_last_file_is_a_zip_is_a_tar(tmp_path, mode):
    inner = _zip(tmp_path / "inner.zip", [("notes/readme.txt", b"text", 0o100644)]).read_bytes()
    archive = _tar(tmp_path / "archive", [("images/a.jpg", b"one"), ("extra.zip", inner)], mode)
    archives.unpack(archive, tmp_path / "out")
    assert _files(tmp_path / "out") == {"images/a.jpg", "extra.zip"}
    # Nested archives stay as they are.
    assert (tmp_path / "out/extra.zip").read_bytes() == inner
    # A ZIP file that holds a tar, and one behind a program that unpacks it.
    content = archive.read_bytes()
    archives.unpack(_zip(tmp_path / "b.zip", [("a.tar", content, 0o100644)]), tmp_path / "out b")
    assert _files(tmp_path / "out b") == {"a.tar"}
    (tmp_path / "c.exe").write_bytes(b"MZ" + bytes(2000) + inner)
    archives.unpack(tmp_path / "c.exe", tmp_path / "out c")
    assert _files(tmp_path / "out c") == {"notes/readme.txt"}


def _zip_of(path, members):
    return _zip(path, [(name, content, 0o100644) for name, content in members])


@pytest.mark.parametrize("write", [_tar, _zip_of])
def test_names_that_linux_can_hold_stay(tmp_path, write):
    names = ("12:30.png", "a:b.png", "a b/\u00e4.png", "./c/./d.png", "x" * 255)
    archives.unpack(write(tmp_path / "archive", [(name, name.encode()) for name in names]), tmp_path / "out")
    assert _files(tmp_path / "out") == {"12:30.png", "a:b.png", "a b/\u00e4.png", "c/d.png", "x" * 255}
    assert (tmp_path / "out/12:30.png").read_bytes() == b"12:30.png"


@pytest.mark.parametrize("write", [_tar, _zip_of])
def test_folders_with_the_separator_of_windows(tmp_path, write):
    archives.unpack(write(tmp_path / "archive", [("images\\a.jpg", b"one")]), tmp_path / "out")
    assert _files(tmp_path / "out") == {"images/a.jpg"}


@pytest.mark.parametrize("write", [_tar, _zip_of])
@pytest.mark.parametrize(
    "names, message",
    [
        (("x" * 300,), r"archive cannot be .*File name too long: '.*x{300}'"),
        (("a", "a/b"), r"archive cannot be .*(File exists|Not a directory): '.*a(/b)?'.*unpack it by another"),
        (("a/b", "a"), r"archive cannot be .*Is a directory: '.*a'"),
        ((".",), r"archive cannot be unpacked"),
        (("",), r"archive cannot be unpacked"),
        (("D:/a",), r"archive names 'D:/a', a file outside its folder: do not trust it"),
        (("a/../../b",), r"a file outside its folder: do not trust it"),
        (("a\\..\\b",), r"a file outside its folder: do not trust it"),
        (("\\\\host\\a",), r"a file outside its folder: do not trust it"),
    ],
)
def test_names_that_cannot_be(tmp_path, write, names, message):
    with pytest.raises(UserError, match=message):
        archives.unpack(write(tmp_path / "archive", [(name, b"one") for name in names]), tmp_path / "out")


@pytest.mark.parametrize("start", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x01", b"\x28\xb5\x2f\xfd"])
def test_archives_of_other_kinds_are_named(tmp_path, start):
    """7-Zip, RAR, and Zstandard."""
    (tmp_path / "a").write_bytes(start + bytes(1000))
    message = r"a cannot be unpacked as a ZIP or tar archive \([^\n]+\). Download it again, or unpack it by another"
    with pytest.raises(UserError, match=message):
        archives.unpack(tmp_path / "a", tmp_path / "out")


def test_a_full_disk_stays_an_error_of_the_disk(tmp_path, monkeypatch):
    """The program names the disk; the archive is intact."""
    archive = _tar(tmp_path / "archive", [("a", b"one")])

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as raised:
        archives.unpack(archive, tmp_path / "out")
    assert not isinstance(raised.value, UserError)


def test_files_can_be_read_and_removed_whatever_their_mode(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as tar:
        info = tarfile.TarInfo("a/b")
        info.mode, info.size = 0o4001, 3
        tar.addfile(info, io.BytesIO(b"one"))
    archives.unpack(tmp_path / "archive", tmp_path / "out")
    assert (tmp_path / "out/a/b").stat().st_mode & 0o7666 == 0o600


def test_an_archive_is_unpacked_once_for_all_processes(tmp_path):
    archive = _tar(tmp_path / "images.tgz", [("cat/1.jpg", b"one")])
    scratch = tmp_path / "scratch"
    (scratch / "images.tgz").mkdir(parents=True)
    (scratch / "images.tgz" / "half").touch()  # of a process that was killed
    folder = pathlib.Path(archives.unpacked(str(archive), scratch))
    assert _files(folder) == {"1.jpg"}
    (folder / "1.jpg").write_bytes(b"seen")
    assert archives.unpacked(str(archive), scratch) == str(folder)
    assert (folder / "1.jpg").read_bytes() == b"seen"
    _tar(archive, [("cat/2.jpg", b"another")])
    assert _files(pathlib.Path(archives.unpacked(str(archive), scratch))) == {"2.jpg"}
