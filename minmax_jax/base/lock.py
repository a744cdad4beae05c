"""Keeps a second training out of a run's folder, and a second prediction out of its output folder.

A lock is a file that names its holder. A process that ends, however it ends, gives its file lock back; where a shared
file system keeps no file locks between hosts, the holder also shows that it lives by touching the file.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import logging
import os
import pathlib
import socket
import threading
import time

from minmax_jax.base import strict_json
from minmax_jax.base.errors import UserError

logger = logging.getLogger(__name__)
NAME = ".lock"
# The holder touches its file this often; a process of another host watches it for three such intervals.
_SECONDS_BETWEEN_SIGNS = 5.0
_SIGNS_MISSED = 3
_SECONDS_BETWEEN_TRIES = 0.2


class LockedError(UserError, RuntimeError):
    """Another process works in the folder; the message names it."""


class _InUse(Exception):
    """The message describes the process that holds the lock.

    Attributes:
        holder: what the lock says of it.
    """

    def __init__(self, holder: dict):
        super().__init__(_describe(holder))
        self.holder = holder


@contextlib.contextmanager
def hold(
    folder: pathlib.Path, *, flag: str = "--workdir", work: str = "trains", max_wait: float = 0.0
) -> Iterator[None]:
    """Holds the lock of a folder.

    Args:
        folder: must exist.
        flag: by which the user named the folder.
        work: what a process does that holds the lock, as in "trains".
        max_wait: seconds to wait for another process that holds it; 0 for who keeps it for all of its work. Nobody
            waits for such a process.

    Raises:
        LockedError: naming process, host and start of the work that holds it.
    """
    file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        end, is_told = time.monotonic() + max_wait, False
        while True:
            try:
                _acquire(file, folder, is_brief=max_wait > 0)
                break
            except _InUse as error:
                if time.monotonic() >= end or not error.holder.get("brief", True):
                    raise _locked(folder, flag, work, error) from None
                if not is_told:
                    logger.info("Waiting for %s in %s, at most %.0f s.", error, folder, max_wait)
                is_told = True
            time.sleep(_SECONDS_BETWEEN_TRIES)
        ended = threading.Event()
        threading.Thread(target=_show_signs, args=(file, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            with contextlib.suppress(OSError):  # a full disk must not hide what ended the work
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def check_free(folder: pathlib.Path, *, flag: str = "--workdir", work: str = "trains") -> None:
    """Checks that no process holds the lock of a folder, and leaves no trace in it.

    Args:
        folder: need not exist.
        flag: as of `hold`.
        work: as of `hold`.

    Raises:
        LockedError: as of `hold`.
    """
    try:
        file = os.open(folder / NAME, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        _find_holder(file, folder)
    except _InUse as error:
        raise _locked(folder, flag, work, error) from None
    finally:
        os.close(file)


def _locked(folder: pathlib.Path, flag: str, work: str, error: _InUse) -> LockedError:
    return LockedError(
        f"{flag}={str(folder)!r} is in use: {error} {work} in it. Wait for it, end it, or give another {flag}."
    )


def _acquire(file: int, folder: pathlib.Path, *, is_brief: bool) -> None:
    if holder := _find_holder(file, folder):
        logger.info("The work of %s in this folder has ended; this process takes over.", _describe(holder))
    content = strict_json.dumps(
        {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "machine": _machine(),
            "brief": is_brief,
        }
    )
    os.ftruncate(file, 0)
    os.pwrite(file, content.encode(), 0)
    os.fsync(file)


def _find_holder(file: int, folder: pathlib.Path) -> dict:
    """Takes the file lock, where there are any; returns the description of a holder that is gone, {} without.

    Raises:
        _InUse: if the holder works.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        has_file_locks = True
    except BlockingIOError:
        raise _InUse(_read_holder(file)) from None
    except OSError:  # a file system without file locks
        has_file_locks = False
    holder = _read_holder(file)
    # Of this machine the free file lock proves that the holder is gone.
    if holder and not (has_file_locks and holder.get("machine") == _machine()) and _gives_signs(folder, holder):
        raise _InUse(holder)
    return holder


def _machine() -> str:
    """What a process identifier belongs to: a boot of a machine, and a container in it."""
    parts = [socket.gethostname()]
    for read in (
        lambda: pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):  # not on this operating system
            parts.append(read())
    return " ".join(parts)


def _read_holder(file: int) -> dict:
    """The content of the lock; {} if nobody holds it, or if its holder was killed before it had written."""
    try:
        holder = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _show_signs(file: int, ended: threading.Event) -> None:
    while not ended.wait(_SECONDS_BETWEEN_SIGNS):
        with contextlib.suppress(OSError):
            os.utime(file)


def _gives_signs(folder: pathlib.Path, holder: dict) -> bool:
    """Whether the file is touched while we watch: needs no clocks that agree."""
    logger.info("Waiting for signs of life of %s in %s.", _describe(holder), folder)
    first = _modified(folder / NAME)
    for _ in range(_SIGNS_MISSED):
        time.sleep(_SECONDS_BETWEEN_SIGNS)
        if _modified(folder / NAME) != first:
            return True
    return False


def _modified(path: pathlib.Path) -> int:
    with path.open("rb") as file:  # network file systems look for news of a file when it is opened
        return os.fstat(file.fileno()).st_mtime_ns


def _describe(holder: dict) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('process', '?')} on {holder.get('host', '?')} (started {holder.get('started', '?')})"
