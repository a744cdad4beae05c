"""Parts of a dataset in folders or archives; archives are unpacked without being trusted."""

from collections.abc import Iterator, Sequence
import errno
import functools
import gzip
import logging
import lzma
import pathlib
import re
import tarfile
import zipfile
import zlib

from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset

logger = logging.getLogger(__name__)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_NOT_READ = {b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard"}
_UNPACK = "Unpack it by another program and give the folder."


def find(sources: Sequence[str], part: str, *, archive: str, scratch: pathlib.Path, homepage: str) -> pathlib.Path:
    """Finds a part of a dataset: a file or a folder.

    Args:
        sources: folders that hold the part or its archive, or the archive or the part itself.
        part: its name.
        archive: name of the archive whose top holds it; of a part that comes as it is, the same name.
        scratch: folder to unpack to.
        homepage: named where the part is missing.

    Raises:
        DataError: if a source does not exist, or if none has the part.
    """
    paths = [local_path("source", source) for source in sources]
    for path in paths:
        if not path.exists():
            raise OptionError(f"source={str(path)!r} does not exist. Get the dataset from {homepage}.")
    for path in _places(paths, part):
        return path
    for path in _places(paths, archive):
        unpack(path, scratch / archive)
        if not (scratch / archive / part).exists():
            raise dataset.DataError(f"{path} holds no {part!r} at its top. Get it again from {homepage}.")
        return scratch / archive / part
    wanted = " or ".join(repr(name) for name in dict.fromkeys((part, archive)))
    raise OptionError(f"source={', '.join(map(str, sources))} has no {wanted}. Get it from {homepage}.")


def _places(paths: list[pathlib.Path], name: str) -> Iterator[pathlib.Path]:
    """Paths with a name: one of the given paths, or an entry of one of them."""
    candidates = (path if path.name == name else path / name for path in paths)
    return (path for path in candidates if path.exists())


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the files of a ZIP or tar archive into a new folder; links and devices are left out.

    Raises:
        DataError: if it is of another kind, is damaged or encrypted, names a file outside the folder, or has names that
            this file system cannot hold.
    """
    logger.info("Unpacking %s.", archive)
    folder.mkdir(parents=True)
    try:
        if _is_zip(archive):
            _unpack_zip(archive, folder)
        else:
            with tarfile.open(archive, "r:*") as tar:
                tar.extractall(folder, filter=functools.partial(_filter_member, archive))
    except tarfile.FilterError as error:
        raise _outside(archive, error.tarinfo.name) from error
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        raise _explain(archive, folder, error) from error


def _is_zip(archive: pathlib.Path) -> bool:
    """Whether it begins as a ZIP file does. Its end, where zipfile.is_zipfile looks, may be that of a tar's last file.

    Raises:
        DataError: if it begins as an archive of a kind that is not read.
    """
    with archive.open("rb") as file:
        start = file.read(max(map(len, _NOT_READ)))
    if kind := next((kind for magic, kind in _NOT_READ.items() if start.startswith(magic)), ""):
        raise dataset.DataError(f"{archive} is a {kind} archive; ZIP and tar are read. {_UNPACK}")
    return start.startswith(_ZIP) or (zipfile.is_zipfile(archive) and not tarfile.is_tarfile(archive))


def _filter_member(archive: pathlib.Path, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    if not member.isfile():
        return None
    return tarfile.data_filter(member.replace(name=_safe_name(archive, member.name), deep=False), folder)


def _unpack_zip(archive: pathlib.Path, folder: pathlib.Path) -> None:
    with zipfile.ZipFile(archive) as files:
        for member in files.infolist():
            # The upper half is the mode that Unix gives a file; a link's content is a path.
            if member.is_dir() or (member.external_attr >> 16) & 0o170000 == 0o120000:
                continue
            name = member.filename
            member.filename = _safe_name(archive, name)
            try:
                files.extract(member, folder)
            # Of encrypted files, and of compression that is not known.
            except RuntimeError as error:
                raise dataset.DataError(f"{archive}: {name!r} cannot be read ({error}). {_UNPACK}") from error


def _safe_name(archive: pathlib.Path, name: str) -> str:
    """The path of a file in an archive, with slashes; zipfile and tarfile would make others of some that are refused.

    Raises:
        DataError: for one that is not below the archive's folder.
    """
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:[\\/]", name):
        raise _outside(archive, name)
    if not path.parts or "\0" in name:
        raise dataset.DataError(f"{archive} names {name!r}, which cannot be a file. Get it again from its source.")
    return str(path)


def _outside(archive: pathlib.Path, name: str) -> dataset.DataError:
    return dataset.DataError(f"{archive} names {name!r}, a file outside its folder: do not trust it.")


def _explain(archive: pathlib.Path, folder: pathlib.Path, error: OSError) -> Exception:
    """What to raise for an error of reading the archive or of writing its files."""
    name = error.filename
    if isinstance(name, str) and pathlib.Path(name).is_relative_to(folder):
        name = str(pathlib.Path(name).relative_to(folder))
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return dataset.DataError(f"{archive} names {name!r} as a file and as a folder. {_UNPACK}")
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
        return dataset.DataError(f"{archive} names {name!r}, which this file system cannot hold. Rename it there.")
    # What a decoder says of its input has no number, and a seek beyond the file has this one.
    return _damaged(archive, error) if error.errno in (None, errno.EINVAL) else error


def unpacked(source: str, scratch: pathlib.Path) -> str:
    """The source if it is a folder; an archive is unpacked: its only folder, or all of it.

    Raises:
        DataError: as `unpack`.
    """
    path = local_path("source", source)
    if not path.is_file():
        return source
    folder = scratch / path.name
    unpack(path, folder)
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    is_inside = len(entries) == 1 and entries[0].is_dir()
    return str(entries[0] if is_inside else folder)


def _damaged(archive: pathlib.Path, error: Exception) -> dataset.DataError:
    return dataset.DataError(f"{archive} is not a complete archive ({error}). Delete it and download it again.")
