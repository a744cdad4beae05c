"""Prepared datasets on disk: TFDS folders of array_record files with images, masks, boxes, labels and names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import logging
import os
import pathlib
import shutil

import numpy as np

from minmax_jax.base import disk, progress, shares
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset, load
from minmax_jax.data.importing import chunks, joining, raw_dataset, record_files, sharing, summary

logger = logging.getLogger(__name__)
SCRATCH = "incomplete.unpacked"
_WRITTEN = "incomplete.written"
_CHUNKS = "incomplete.chunks"
# Seconds that a process waits for another one that joins all chunks.
_MAX_WAIT = 3600


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A dataset that is prepared.

    Attributes:
        folder: of its records.
        masks: for `summary.describe`; None if it was prepared before.
    """

    folder: pathlib.Path
    masks: Mapping[str, Sequence[summary.MaskFacts]] | None = None


def prepare(
    name: str,
    read_raw: Callable[[pathlib.Path], raw_dataset.RawDataset],
    data_dir: str | pathlib.Path,
    *,
    skip_bad: bool = False,
    job: str = "",
    share: shares.Share = shares.ALL,
    num_threads: int = 1,
) -> Prepared | None:
    """Reads the images of a raw dataset, checks them and writes their records, unless they exist.

    Images are read in chunks, whose files are kept until all were read and checked. Then the records are written to a
    folder whose name begins with "incomplete", which is renamed at the end: a folder with the final name is complete.
    Processes that share the images write the same as one process: the last of them that ends checks and joins all.

    Args:
        name: of the dataset.
        read_raw: takes a folder that archives can be unpacked to, which is removed afterwards.
        data_dir: folder to write to.
        skip_bad: whether images that cannot be used are left out, and listed in a file next to the records.
        job: what determines the records and is not in the items of the raw dataset, such as flags. After a kill, or
            Ctrl-C, a call with the same `job` goes on with the chunks that are missing. With "", it begins anew.
        share: of the chunks, for this process. Several processes need a `job`.
        num_threads: that read images at the same time.

    Returns:
        The dataset; None where other processes are not done: the last one joins.

    Raises:
        DataError: if the dataset cannot be used, if the folder cannot be written, or if another process writes there.
        LockedError: if another process makes the same share.
    """
    parent = local_path("data_dir", data_dir) / name
    folder = parent / load.VERSION
    with _alone(parent, is_shared=share.count > 1):
        _remove_leftovers(parent, but=(SCRATCH, _CHUNKS, _WRITTEN) if job and not folder.exists() else ())
        if folder.exists():
            logger.info("%s is prepared already; the source was not read. To prepare it anew, delete it.", folder)
            return Prepared(folder)
        raw, is_kept = None, share.count > 1
        try:
            raw = read_raw(parent / SCRATCH)
            found = chunks.Folder(parent / _CHUNKS, raw, job)
            others = _read_share(found, share, folder, num_threads=num_threads)
            return _join(name, found, others, folder, share, skip_bad=skip_bad)
        # RuntimeError: what array_record raises where the disk is full.
        except (OSError, RuntimeError) as error:
            if not disk.is_full(error):
                raise
            raise _cannot_write(parent, error, raw_dataset.num_bytes(raw) if raw else 0, is_kept=is_kept) from error
        except KeyboardInterrupt:
            is_kept = bool(job)
            raise
        finally:
            if folder.exists() or not is_kept:
                _remove_leftovers(parent)


def _read_share(
    found: chunks.Folder, share: shares.Share, folder: pathlib.Path, *, num_threads: int
) -> list[chunks.Chunk]:
    """Makes the chunks of this process, unless the dataset is prepared; returns those of others."""
    all_chunks = chunks.divide(found.raw)
    mine = share.of(all_chunks)
    with sharing.own_share(found.path, share):
        if not folder.exists():
            serialize = record_files.create_serializer(found.raw.class_names)
            chunks.make_all(found, mine, serialize, num_threads=num_threads)
    made = {chunk.number for chunk in mine}
    return [chunk for chunk in all_chunks if chunk.number not in made]


def _join(
    name: str,
    found: chunks.Folder,
    others: Sequence[chunks.Chunk],
    folder: pathlib.Path,
    share: shares.Share,
    *,
    skip_bad: bool,
) -> Prepared | None:
    """Checks and writes the dataset, unless another process has done so, or will."""
    written = folder.parent / _WRITTEN
    try:
        with sharing.alone(found.path):
            if folder.exists():
                return None
            if not sharing.is_last(found.path, share):
                logger.info("This share is read; other processes are at work, the last one joins all.")
                return None
            if missing := sum(not found.is_made(chunk) for chunk in others):
                logger.info(
                    "This share is read; %d chunks of others are not. Start or rerun the other processes, or the"
                    " command without num_processes: what is read stays.",
                    missing,
                )
                return None
            shutil.rmtree(written, ignore_errors=True)
            masks = joining.join(name, found, written, skip_bad=skip_bad)
            written.rename(folder)
            return Prepared(folder, masks)
    except FileNotFoundError:
        if folder.exists():  # another process has joined all, and removed the chunks
            return None
        raise
    except dataset.DataError:
        _remove_leftovers(folder.parent)
        raise


@contextlib.contextmanager
def _alone(parent: pathlib.Path, *, is_shared: bool) -> Iterator[None]:
    """Keeps other processes out of a folder, which is removed if it is empty in the end.

    Args:
        parent: the folder.
        is_shared: whether others that share it are let in.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(folder, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise dataset.DataError(
                    f"{parent} is in use: another process prepares it. Wait for it, or choose another data_dir."
                ) from None
        yield
    finally:
        os.close(folder)
        with contextlib.suppress(OSError):
            parent.rmdir()


def _cannot_write(parent: pathlib.Path, error: Exception, needed_bytes: int, *, is_kept: bool) -> dataset.DataError:
    reason = disk.explain(error, parent, needed_bytes=needed_bytes)
    kept = "What was read is kept." if is_kept else "No partial output was kept."
    return dataset.DataError(f"{reason} {kept} Make room or choose another data_dir, then rerun.")


def _remove_leftovers(parent: pathlib.Path, *, but: Sequence[str] = ()) -> None:
    for leftover in parent.glob("incomplete.*"):
        if leftover.name not in but:
            shutil.rmtree(leftover, ignore_errors=True)  # another process may do so


def check(data_dir: str, name: str) -> None:
    """Reads every image, mask and box of a prepared dataset, with progress.

    Raises:
        DataError: listing what cannot be read or does not fit.
    """
    problems = []
    for split_name, split in load.read_splits(data_dir, name).items():
        for index in progress.track(range(len(split)), f"Checking {split_name}"):
            try:
                problem = _find_problem(split, index)
            except (dataset.DataError, RuntimeError) as error:
                problem = str(error)
            if problem:
                problems.append(f"{split_name}, {split.names[index]!r}: {problem}")
    if problems:
        raise dataset.DataError(
            f"{pathlib.Path(data_dir, name, load.VERSION)} is damaged. Delete it and prepare it again. {len(problems)}"
            " problems:\n  " + "\n  ".join(problems)
        )


def _find_problem(split: dataset.Split, index: int) -> str:
    size, mask, boxes = tuple(split.sizes[index].tolist()), split.read_mask(index), split.read_boxes(index)
    stored, instances = split.read_image(index).shape[:2], split.read_instances(index)
    if stored != size:
        return f"the image has {stored} pixels instead of {size}."
    if mask is not None and mask.shape != size:
        return f"the mask has {mask.shape} pixels, the image {size}."
    if instances is not None and (mask is None or not np.array_equal(instances > 0, mask)):
        return "the objects are not the foreground of the mask."
    if not ((boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()):
        return f"the boxes {boxes.tolist()} are not valid."
    if not 0 <= split.labels[index] < len(split.class_names):
        return f"the label {split.labels[index]} is not one of {len(split.class_names)} classes."
    return ""
