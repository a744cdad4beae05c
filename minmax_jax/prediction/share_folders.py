"""Folders of the processes that share a prediction: rows of each, and when the last of them joins all."""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
import logging
import pathlib
import shutil
from typing import Any

from minmax_jax.base import lock, shares, strict_json
from minmax_jax.prediction import completion
from minmax_jax.prediction import rows as rows_lib
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.rows import Row

logger = logging.getLogger(__name__)
_SHARES = "shares"
_FINISHED = "finished.json"  # in the folder of a process: its share is predicted; what was skipped, and why
_EARLIER = "skipped.json"  # files that the manifest of an earlier prediction lists as skipped


def place(output: pathlib.Path, share: shares.Share) -> pathlib.Path:
    """The folder of a process: the output folder itself, if there is one process."""
    return output if share.count == 1 else output / _SHARES / f"{share.index}_of_{share.count}"


def is_of(folder: pathlib.Path, share: shares.Share) -> bool:
    """Whether a folder is that of a process among as many."""
    return folder.name.endswith(f"_of_{share.count}")


def refuse_others(output: pathlib.Path, share: shares.Share) -> None:
    """Raises LockedError if a process predicts into the folder that shares the files with another number of processes.

    Such processes would not know which files this one predicts.
    """
    for folder in _folders(output):
        if not is_of(folder, share) or share.count == 1:
            lock.check_free(folder, flag="--output", work=f"predicts a share ({folder.name.replace('_', ' ')})")


def begin(output: pathlib.Path, own: pathlib.Path) -> None:
    """Takes back that a prediction is complete, and that this process has finished its share."""
    manifest = output / completion.MANIFEST
    if own != output and manifest.exists():
        skipped = [
            entry for entry in _read(manifest)["skipped"] if not _is_newer(pathlib.Path(entry["path"]), manifest)
        ]
        rows_lib.write_text(output / _SHARES / _EARLIER, strict_json.dumps({"skipped": _identify(skipped)}))
    (own / _FINISHED).unlink(missing_ok=True)
    manifest.unlink(missing_ok=True)


def read_rows(output: pathlib.Path) -> dict[pathlib.Path, list[Row]]:
    """Rows by folder; those of processes come first: they are newer."""
    return {folder: rows_lib.read(folder) for folder in (*_folders(output), output)}


def finish(own: pathlib.Path, inputs: Sequence[Input], skipped: Sequence[Mapping[str, str]]) -> None:
    """Records that this process has predicted its share.

    Args:
        own: its folder.
        inputs: the files of all processes.
        skipped: those of its share that cannot be read, and why.
    """
    content = {"inputs": _digest(inputs), "skipped": _identify(skipped)}
    rows_lib.write_text(own / _FINISHED, strict_json.dumps(content))


def join(
    output: pathlib.Path,
    own: pathlib.Path,
    inputs: Sequence[Input],
    options: Options,
    *,
    complete: Callable[[Mapping[str, Row], Sequence[Mapping[str, str]]], dict[str, Any]],
) -> dict[str, Any] | None:
    """Completes the prediction if all files are predicted or skipped and no other process is at work.

    Args:
        output: the folder of the prediction, whose lock this process holds.
        own: that of this process.
        inputs: all files.
        options: of the prediction.
        complete: (rows by stem, skipped files) -> content of the manifest, which is written.

    Returns:
        The content of the manifest; None if another process has joined, or will, or must be started.
    """
    if (output / completion.MANIFEST).exists():
        return None
    if busy := [folder.name for folder in _folders(output) if folder != own and _is_busy(folder)]:
        logger.info("This share is predicted; others are at work (%s), the last one joins all.", ", ".join(busy))
        return None
    if others := _with_other_inputs(own, inputs):
        logger.warning(
            "Shares are not joined: %s had other files than this one has now. Start all processes with the same PATH.",
            ", ".join(others),
        )
        return None
    rows = (row for rows in read_rows(output).values() for row in rows)
    done = rows_lib.find_done(rows, inputs, output, options)
    reasons, rest = _read_skipped(output), [item.path for item in inputs if item.stem not in done]
    missing = [path for path in rest if _key(path) not in reasons]
    if missing:
        logger.info(
            "This share is predicted; %d of %d images are not, such as %s. Start or rerun the other processes, or the"
            " command without num_processes: what is predicted stays.",
            *(len(missing), len(inputs), missing[0]),
        )
        return None
    manifest = complete(done, [{"path": str(path), "reason": reasons[_key(path)]} for path in rest])
    remove(output)
    return manifest


def remove(output: pathlib.Path) -> None:
    """Removes the folders of all processes, whose rows are joined."""
    shutil.rmtree(output / _SHARES, ignore_errors=True)


def _folders(output: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder for folder in (output / _SHARES).glob("*_of_*") if folder.is_dir())


def _is_busy(folder: pathlib.Path) -> bool:
    if (folder / _FINISHED).exists():
        return False
    try:
        lock.check_free(folder)
    except lock.LockedError:
        return True
    return False


def _with_other_inputs(own: pathlib.Path, inputs: Sequence[Input]) -> list[str]:
    """Names of the processes, among as many, that have finished a share of other files than these."""
    digest, count = _digest(inputs), own.name.rpartition("_")[2]
    return [
        folder.name
        for folder in sorted(own.parent.glob(f"*_of_{count}"))
        if _read(folder / _FINISHED).get("inputs", digest) != digest
    ]


def _digest(inputs: Sequence[Input]) -> str:
    paths = "\0".join(str(item.path.resolve()) for item in inputs)
    return hashlib.blake2b(paths.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _is_newer(path: pathlib.Path, manifest: pathlib.Path) -> bool:
    """Whether a file was written, or took the place of another, after the manifest."""
    return path.exists() and path.stat().st_ctime_ns > manifest.stat().st_mtime_ns


def _identify(skipped: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Reasons of skipped files by what identifies these: another file in the place of one is not skipped for them."""
    return [{"file": _key(pathlib.Path(entry["path"])), "reason": entry["reason"]} for entry in skipped]


def _key(path: pathlib.Path) -> str:
    return strict_json.dumps(rows_lib.describe_file(path) or str(path.resolve()))


def _read_skipped(output: pathlib.Path) -> dict[str, str]:
    """Reasons by file."""
    files = [output / _SHARES / _EARLIER, *(folder / _FINISHED for folder in _folders(output))]
    return {entry["file"]: entry["reason"] for file in files for entry in _read(file).get("skipped", ())}


def _read(path: pathlib.Path) -> dict[str, Any]:
    """The content of a file, {} if it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
