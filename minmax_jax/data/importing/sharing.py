"""Processes that share the images of one preparation: each holds its share; the last one that ends joins all."""

from collections.abc import Iterator
import contextlib
import pathlib
import shutil

from minmax_jax.base import lock, shares

_FLAG = "--data_dir"
# Seconds that a process waits for another one that begins, or that joins all.
_MAX_WAIT = 3600


@contextlib.contextmanager
def own_share(folder: pathlib.Path, share: shares.Share) -> Iterator[None]:
    """Holds the share of this process.

    Args:
        folder: of the chunks; created.
        share: of this process.

    Raises:
        LockedError: if another process holds it, or one of another number of processes.
    """
    own = _place(folder, share)
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        with alone(folder):
            for other in folder.glob("*_of_*"):
                if not other.name.endswith(f"_of_{share.count}"):
                    lock.check_free(other, flag=_FLAG, work=f"prepares a share ({other.name.replace('_', ' ')})")
                    shutil.rmtree(other)
            own.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.hold(own, flag=_FLAG, work="prepares the same share"))
        yield


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from beginning their share, and from joining all; waits for one that does."""
    with lock.hold(folder, flag=_FLAG, work="prepares", max_wait=_MAX_WAIT):
        yield


def is_last(folder: pathlib.Path, share: shares.Share) -> bool:
    """Whether no other process holds its share.

    Args:
        folder: of the chunks.
        share: of this process, which has released it.
    """
    return not any(_is_busy(other) for other in folder.glob("*_of_*") if other != _place(folder, share))


def _place(folder: pathlib.Path, share: shares.Share) -> pathlib.Path:
    return folder / f"{share.index}_of_{share.count}"


def _is_busy(other: pathlib.Path) -> bool:
    try:
        lock.check_free(other)
    except lock.LockedError:
        return True
    return False
