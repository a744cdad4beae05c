"""Parts of a dataset in folders or archives; archives are unpacked without being trusted."""

from collections.abc import Iterator, Sequence
import errno
import functools
import logging
import lzma
import pathlib
import shutil
import stat
import tarfile
import zipfile
import zlib

from minmax_jax.base import lock
from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset

logger = logging.getLogger(__name__)
# Seconds that a process waits for another one that unpacks.
_MAX_WAIT = 3600
# RuntimeError: of encrypted files, and of a compression that zipfile does not know. ValueError: of empty names.
_DAMAGES = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError, ValueError)
# Numbers of errors that an archive causes, unlike a full disk: errors of decoders have none, a seek beyond the end has
# EINVAL, and the others come from names.
_OF_NAMES = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EILSEQ)
_OF_ARCHIVES = (None, errno.EINVAL, *_OF_NAMES)


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
        _unpack_once(path, scratch / archive)
        if not (scratch / archive / part).exists():
            raise dataset.DataError(f"{path} holds no {part!r} at its top. Get it again from {homepage}.")
        return scratch / archive / part
    wanted = " or ".join(repr(name) for name in dict.fromkeys((part, archive)))
    raise OptionError(f"source={', '.join(map(str, sources))} has no {wanted}. Get it from {homepage}.")


def _places(paths: list[pathlib.Path], name: str) -> Iterator[pathlib.Path]:
    """Paths with a name: one of the given paths, or an entry of one of them."""
    candidates = (path if path.name == name else path / name for path in paths)
    return (path for path in candidates if path.exists())


def _unpack_once(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """As `unpack`; of several processes one does so, and the others wait.

    What it left when it was killed is removed. What it finished is kept, unless the archive has changed.
    """
    status = archive.stat()
    identity = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    finished = folder.with_name(f"{folder.name}.unpacked")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock.hold(folder.parent, flag="--data_dir", work="unpacks an archive", max_wait=_MAX_WAIT):
        if finished.exists() and finished.read_text(errors="surrogateescape") == identity:
            return
        finished.unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        unpack(archive, folder)
        finished.write_text(identity, errors="surrogateescape")


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the files of a ZIP or tar archive into a new folder; links and devices are left out.

    Raises:
        DataError: if it is of another kind, is damaged or encrypted, names a file outside the folder, or has names that
            this file system cannot hold.
    """
    logger.info("Unpacking %s.", archive)
    folder.mkdir(parents=True)
    try:
        # Both are asked: the last file of a tar may be a ZIP file, whose end zipfile looks for.
        if zipfile.is_zipfile(archive) and not tarfile.is_tarfile(archive):
            _unpack_zip(archive, folder)
        else:
            with tarfile.open(archive) as files:
                files.extractall(folder, filter=functools.partial(_filter_member, archive))
    except tarfile.FilterError as error:
        raise _outside(archive, error.tarinfo.name) from error
    except dataset.DataError:
        raise
    except _DAMAGES as error:
        raise _unreadable(archive, error) from error
    except OSError as error:
        raise (_unreadable(archive, error) if error.errno in _OF_ARCHIVES else error) from error


def _filter_member(archive: pathlib.Path, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    if not member.isfile():
        return None
    return tarfile.data_filter(member.replace(name=_path_inside(archive, member.name), deep=False), folder)


def _unpack_zip(archive: pathlib.Path, folder: pathlib.Path) -> None:
    with zipfile.ZipFile(archive) as files:
        for member in files.infolist():
            # The upper half is the mode that Unix gives a file; a link's content is a path. is_dir() needs a name.
            if not (member.filename.endswith("/") or stat.S_ISLNK(member.external_attr >> 16)):
                member.filename = _path_inside(archive, member.filename)
                files.extract(member, folder)


def _path_inside(archive: pathlib.Path, name: str) -> str:
    """The path of a file in an archive, with slashes; zipfile and tarfile would change some that are refused here.

    Raises:
        DataError: for a path that does not lie below the archive's folder.
    """
    path = pathlib.PureWindowsPath(name)  # accepts both separators
    if path.root or ".." in path.parts:
        raise _outside(archive, name)
    return path.as_posix()


def _outside(archive: pathlib.Path, name: str) -> dataset.DataError:
    return dataset.DataError(f"{archive} names {name!r}, a file outside its folder: do not trust it.")


def _unreadable(archive: pathlib.Path, error: Exception) -> dataset.DataError:
    reason = str(error).partition("\n")[0].removesuffix(":")  # tarfile adds a line for each compression
    return dataset.DataError(
        f"{archive} cannot be unpacked as a ZIP or tar archive ({reason}). Download it again, or unpack it by another"
        " program and give the folder."
    )


def unpacked(source: str, scratch: pathlib.Path) -> str:
    """The source if it is a folder; an archive is unpacked: its only folder, or all of it.

    Raises:
        DataError: as `unpack`.
    """
    path = local_path("source", source)
    if not path.is_file():
        return source
    folder = scratch / path.name
    _unpack_once(path, folder)
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    is_inside = len(entries) == 1 and entries[0].is_dir()
    return str(entries[0] if is_inside else folder)
