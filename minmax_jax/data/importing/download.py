"""Files from the web: continued where they broke off, checked, and only then given their name."""

from collections.abc import Sequence
import dataclasses
import hashlib
import http.client
import logging
import pathlib
import shutil
import urllib.error
import urllib.request

import tqdm

from minmax_jax.data import dataset

logger = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 1 << 20
_PART = ".part"


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a release.

    Attributes:
        urls: where it lies, the official place first; the others are tried when that fails.
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
    """Downloads what is not there yet.

    What was broken off lies beside its place as NAME.part, and is continued.

    Args:
        files: to get.
        folder: to write to.
        homepage: named where a file cannot be had.

    Raises:
        DataError: telling what to get by hand, if a file cannot be had or is another one than published.
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for file in files:
        target = folder / file.name
        if target.exists():
            problem = _find_fault(file, target)
            if not problem:
                logger.info("%s is there already.", target)
                continue
            logger.info("%s is replaced: %s.", target, problem)
        problems = _fetch_from_any(file, target)
        if problems:
            failures.append(f"{file.name}:\n    " + "\n    ".join(problems))
    if failures:
        raise dataset.DataError(
            "Not all files could be downloaded. Run the same command again, or get them by hand from\n"
            f"  {homepage}\nand put them into {folder}:\n  " + "\n  ".join(failures)
        )


def _fetch_from_any(file: File, target: pathlib.Path) -> list[str]:
    """Tries one address after the other; returns what was wrong with each, or nothing."""
    part = target.with_name(target.name + _PART)
    problems = []
    for url in file.urls:
        try:
            _continue(url, part, file)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problems.append(f"{url}: {error}")
            continue
        problem = _find_fault(file, part)
        if not problem:
            part.replace(target)
            return []
        part.unlink()
        problems.append(f"{url}: {problem}")
    return problems


def _find_fault(file: File, path: pathlib.Path) -> str:
    """How a file differs from what is published; "" if it does not, or if nothing is published."""
    size = path.stat().st_size
    if file.size and size != file.size:
        return f"it has {size} bytes instead of {file.size}"
    if not file.sha256:
        return ""
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    return "" if found == file.sha256 else f"its SHA-256 is {found} instead of {file.sha256}"


def _continue(url: str, part: pathlib.Path, file: File) -> None:
    """Appends to `part` what it lacks; as long as something comes, a broken connection is taken up again."""
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
            logger.info("The connection to %s broke; going on.", url)


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
        # Nothing is left to send: the part is whole already, or of another file.
        if error.headers.get("Content-Range") != f"bytes */{start}":
            part.unlink()
            _append(url, part, 0, file)
        return
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # A server that knows no ranges sends everything.
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else file.size or None
        _check_space(part, (total or 0) - start)
        with (
            part.open("ab" if start else "wb") as output,
            tqdm.tqdm(desc=file.name, initial=start, total=total, unit="B", unit_scale=True) as bar,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                output.write(chunk)
                bar.update(len(chunk))
            if total and output.tell() < total:
                raise http.client.IncompleteRead(b"", total - output.tell())


def _check_space(part: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(f"{part.parent} has {free / 1e9:.1f} GB left; {part.stem} needs {needed / 1e9:.1f} GB more.")
