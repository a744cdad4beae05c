"""Parts of a dataset in folders or archives; archives are unpacked without being trusted."""

from collections.abc import Iterator, Sequence
import errno
import gzip
import logging
import lzma
import pathlib
import shutil
import tarfile
from typing import BinaryIO
import zipfile
import zlib

from minmax_jax.data import dataset
from minmax_jax.errors import OptionError
from minmax_jax.paths import local_path

logger = logging.getLogger(__name__)


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
        DataError: if it is no archive, is damaged, or names a file outside the folder.
    """
    logger.info("Unpacking %s.", archive)
    folder.mkdir(parents=True)
    try:
        for name, content in _read_zip(archive) if zipfile.is_zipfile(archive) else _read_tar(archive):
            path = pathlib.PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in name:
                raise dataset.DataError(f"{archive} names {name!r}, a file outside its folder: do not trust it.")
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file)
    except (
        *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError),
        # Of encrypted files, and of compression that is not known.
        RuntimeError,
    ) as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        # What a decoder says of its input has no number, and a seek beyond the file has this one.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(archive, error) from error


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


def _read_tar(archive: pathlib.Path) -> Iterator[tuple[str, BinaryIO]]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.isfile():
                yield member.name, tar.extractfile(member)


def _read_zip(archive: pathlib.Path) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(archive) as files:
        for member in files.infolist():
            # The upper half is the mode that Unix gives a file; a link's content is a path.
            if not member.is_dir() and (member.external_attr >> 16) & 0o170000 != 0o120000:
                with files.open(member) as content:
                    yield member.filename, content
