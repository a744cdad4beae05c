"""Recognises full disks and failed reads in the exceptions of other libraries, and explains them."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
import shutil

from minmax_jax.base.errors import UserError

# No space, a quota, and the maximum size of a file.
_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class FullError(UserError):
    """A full disk; the message names the folder, what is free and, if that is known, what is needed."""


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error."""
    return bool(_reason(error))


def _reason(error: BaseException | None) -> str:
    """What the operating system says; some libraries keep only the text of an I/O error, not its number."""
    while error is not None:
        for number in _ERRNOS:
            if getattr(error, "errno", None) == number or os.strerror(number).lower() in str(error).lower():
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return ""


def explain(error: BaseException, folder: pathlib.Path, *, needed_bytes: int = 0) -> str:
    """A sentence that names a folder, what the operating system says, and the space.

    Args:
        error: of a full disk.
        folder: where writing failed; it need not exist.
        needed_bytes: what is to be written, if it is known.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    needed = f", {needed_bytes / 2**20:.1f} MiB are needed" if needed_bytes else ""
    free = shutil.disk_usage(existing).free / 2**20
    return f"{folder} cannot be written ({_reason(error)}; {free:.1f} MiB are free{needed})."


def full_error(error: BaseException, folder: pathlib.Path | None = None, *, needed_bytes: int = 0) -> FullError:
    """The error of a program that a full disk ends.

    Args:
        error: that a full disk is behind of.
        folder: that is written to; not needed where the error names a file, which may be in another one.
        needed_bytes: what is to be written there, if it is known.
    """
    filename = getattr(error, "filename", None)
    if isinstance(filename, str | os.PathLike):
        named = pathlib.Path(filename).parent
        needed_bytes = needed_bytes if folder is not None and named == folder else 0
        folder = named
    what = f"{error}." if folder is None else explain(error, folder, needed_bytes=needed_bytes)
    return FullError(f"{what} Make room and rerun the same command.")


@contextlib.contextmanager
def explained(folder: pathlib.Path, *, needed_bytes: int = 0) -> Iterator[None]:
    """Names a folder in the error of a full disk: a file that is open has no name in the error of a write.

    Args:
        folder: that the block writes to.
        needed_bytes: what it writes, if that is known.

    Raises:
        FullError: in place of any error that a full disk is behind of; others are left as they are.
    """
    try:
        yield
    except UserError:
        raise  # explained already
    except Exception as error:
        if not is_full(error):
            raise
        raise full_error(error, folder, needed_bytes=needed_bytes) from error


def check_writable(folder: pathlib.Path) -> None:
    """Checks that a folder can be created, or written to if it exists; nothing is created.

    Raises:
        OSError: naming the path that is in the way or cannot be written.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing))


def advise(error: OSError) -> str:
    """A sentence for who may not read or write a file, or ""."""
    return " Change its permissions, or choose another folder." if error.errno in _FORBIDDEN else ""


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to write a file to, which gets its name when the block has ended.

    A process that is killed leaves the file as it was. Of two processes that write one file, the last one remains.

    Args:
        path: of the file, which may exist.
    """
    replacement = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        yield replacement
        with replacement.open("rb") as file:
            os.fsync(file.fileno())
        replacement.replace(path)
    except BaseException:
        replacement.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def in_turn(folder: pathlib.Path) -> Iterator[None]:
    """Lets one process after another change a file of a folder; where the file system has no locks, nobody waits."""
    file = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def find_read_error(error: BaseException | None, folder: pathlib.Path) -> str:
    """The failure of the file system behind an error, or "" if all files of the folder are readable.

    What a library raised about readable files is damage; so is a file that is missing.
    """
    while error is not None:
        if _is_failure(error):
            return str(error)
        error = error.__cause__ or error.__context__
    try:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(1 << 24):
                        pass
    except OSError as unreadable:
        return str(unreadable) if _is_failure(unreadable) else ""
    return ""


def _is_failure(error: BaseException) -> bool:
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError)
