"""Downloads: resumed where they were interrupted, checked, and only then renamed to their final name."""

from collections.abc import Sequence
import dataclasses
import hashlib
import http.client
import logging
import pathlib
import shutil
import urllib.error
import urllib.request

from minmax_jax.base import progress
from minmax_jax.data import dataset

logger = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 1 << 20
_PART = ".part"


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a dataset.

    Attributes:
        urls: of the file, the official one first; the others are tried if it fails.
        size: in bytes; 0 if it is not published.
        sha256: "" if it is not published.
    """

    urls: tuple[str, ...]
    size: int = 0
    sha256: str = ""

    @property
    def name(self) -> str:
        return self.urls[0].rpartition("/")[2]


def fetch(files: Sequence[File], folder: pathlib.Path, *, homepage: str) -> None:
    """Downloads the files that are missing; an interrupted download, NAME.part, is resumed.

    Args:
        files: to get.
        folder: to write to.
        homepage: named where a file cannot be downloaded.

    Raises:
        DataError: naming what to download by hand, if a file cannot be downloaded or differs from the published one.
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for file in files:
        target = folder / file.name
        if target.exists():
            problem = _find_problem(file, target)
            if not problem:
                logger.info("%s exists already.", target)
                continue
            logger.info("%s is replaced: %s.", target, problem)
        problems = _fetch_from_any(file, target)
        if problems:
            failures.append(f"{file.name}:\n    " + "\n    ".join(problems))
    if failures:
        raise dataset.DataError(
            "Not all files could be downloaded. Run the same command again, or download them by hand from\n"
            f"  {homepage}\nand put them into {folder}:\n  " + "\n  ".join(failures)
        )


def _fetch_from_any(file: File, target: pathlib.Path) -> list[str]:
    """Tries one URL after another; returns the problem with each, or nothing on success."""
    part = target.with_name(target.name + _PART)
    problems = []
    for url in file.urls:
        try:
            _continue(url, part, file)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problems.append(f"{url}: {error}")
            continue
        problem = _find_problem(file, part)
        if not problem:
            part.replace(target)
            return []
        part.unlink()
        problems.append(f"{url}: {problem}")
    return problems


def _find_problem(file: File, path: pathlib.Path) -> str:
    """How a file differs from the published one; "" if it does not, or if nothing is published."""
    size = path.stat().st_size
    if file.size and size != file.size:
        return f"it has {size} bytes instead of {file.size}"
    if not file.sha256:
        return ""
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return "" if digest == file.sha256 else f"its SHA-256 is {digest} instead of {file.sha256}"


def _continue(url: str, part: pathlib.Path, file: File) -> None:
    """Appends the missing bytes to `part`; reconnects as long as there is progress."""
    while True:
        start = part.stat().st_size if part.exists() else 0
        if file.size and start >= file.size:
            return
        try:
            _append(url, part, start, file)
            return
        except (http.client.IncompleteRead, ConnectionError, TimeoutError):
            if not part.exists() or part.stat().st_size <= start:
                raise
            logger.info("The connection to %s broke; reconnecting.", url)


def _append(url: str, part: pathlib.Path, start: int, file: File) -> None:
    headers = {"User-Agent": "minmax_jax", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        # Nothing left to send: the part is complete, or of another file.
        if error.headers.get("Content-Range") != f"bytes */{start}":
            part.unlink()
            _append(url, part, 0, file)
        return
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # A server without range requests sends the whole file.
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else file.size or None
        _check_space(part, (total or 0) - start)
        with (
            part.open("ab" if start else "wb") as output,
            progress.meter(file.name, total=total, unit="B", initial=start) as update,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                output.write(chunk)
                update(len(chunk))
            if total and output.tell() < total:
                raise http.client.IncompleteRead(b"", total - output.tell())


def _check_space(part: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(f"{part.parent} has {free / 1e9:.1f} GB left; {part.stem} needs {needed / 1e9:.1f} GB more.")
