"""Files of a dataset as it was downloaded, in a folder or in a ZIP file."""

import codecs
import pathlib
import zipfile
import zlib

from minmax_jax.data import dataset

# Both kinds of path are read alike.
Path = pathlib.Path | zipfile.Path


def read_file(path: Path) -> bytes:
    """Its content.

    Raises:
        DataError: if there is no such file, or if it cannot be read.
    """
    try:
        if path.is_file():
            return path.read_bytes()
    # What a damaged or encrypted ZIP file raises, besides.
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise dataset.DataError(
            f"{path} cannot be read ({error}). Get an intact copy or change its permissions."
        ) from error
    if path.exists():
        raise dataset.DataError(f"{path} is not a file.")
    if isinstance(path, pathlib.Path) and path.is_symlink():
        raise dataset.DataError(f"{path} is a link to a file that is missing.")
    raise dataset.DataError(f"{path} is missing.")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        DataError: as `read_file`; if it is no such text.
    """
    try:
        return (content := read_file(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise dataset.DataError(
                f'{path} is UTF-16, such as Excel\'s "Unicode Text". Save it as UTF-8, in Excel as "CSV UTF-8".'
            ) from error
        raise dataset.DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
