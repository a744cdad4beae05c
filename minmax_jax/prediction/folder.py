"""The output folder of a prediction: files of each image, tables of all, and last the manifest that says complete."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import logging
import pathlib
import shutil
from typing import Any

from minmax_jax.base import disk, lock, progress, shares, strict_json
from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.evaluation import trust
from minmax_jax.prediction import completion, file_writing, share_folders
from minmax_jax.prediction import rows as rows_lib
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.rows import Row
from minmax_jax.runs.predictor import Predictor

logger = logging.getLogger(__name__)
_STATE = "options.json"  # what the files of an unfinished prediction were made with
# Seconds that a process waits for others that begin, or that write tables of all images.
_MAX_WAIT = 600


def predict(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    *,
    model: Mapping[str, Any],
    results: Mapping[str, Any],
    left_out: Mapping[str, int] | None = None,
    workdir: str = "",
    share: shares.Share = shares.ALL,
) -> dict[str, Any] | None:
    """Predicts files into a folder; after a kill, the same call resumes.

    Files that changed, and those of which an output is missing, are predicted again. Processes that share the files
    write the same as one process: the last of them that ends joins rows, tables and manifest.

    Args:
        predictor: the model.
        inputs: the files, of all processes.
        output: the folder, created if there is none.
        options: what is written.
        model: identifies the model and what is done at test time, as JSON values: another one needs another folder.
        results: content of the run's `results.json`, {} without.
        left_out: numbers of files by ending that folders hold and that are no images, for log and manifest.
        workdir: where the model is, for the manifest: a prediction resumes with a copy of the run.
        share: of the files that this process predicts.

    Returns:
        The content of the manifest, whose "skipped" lists the files that could not be predicted; None if other
        processes have not finished their shares.

    Raises:
        OptionError: if the folder holds anything but predictions of this model with these options.
        UserError: if the folder cannot be written.
        LockedError: if another process predicts these files into the folder.
    """
    state = {"model": dict(model), "options": dataclasses.asdict(options)}
    _check_folder(output, state)
    output.mkdir(parents=True, exist_ok=True)
    own, mine = share_folders.place(output, share), share.of(inputs)
    of_model = trust.find_model_flags(results)
    further = {"workdir": workdir, "left_out": dict(left_out or {})}

    def predict_mine(done: Mapping[str, Row]) -> tuple[list[Row], list[dict[str, str]]]:
        rest = [item for item in mine if item.stem not in done]
        with progress.meter("Prediction", total=len(mine), unit="image", initial=len(done)) as update:
            return file_writing.predict(
                predictor, rest, output, options, own=own, all_inputs=inputs, of_model=of_model, update=update
            )

    def complete(done: Mapping[str, Row], skipped: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        return completion.complete(
            predictor, inputs, output, options, state, done=done, skipped=skipped, further=further
        )

    with _explained(output), contextlib.ExitStack() as alone:
        if share.count == 1:
            alone.enter_context(lock.hold(output, flag="--output", work="predicts"))
            _open(output, state)
            share_folders.refuse_others(output, share)
            done = _begin(output, own, mine, options, share)
            rows, skipped = predict_mine(done)
            return complete(done | {row["stem"]: row for row in rows}, skipped)
        with lock.hold(output, flag="--output", work="predicts", max_wait=_MAX_WAIT):
            _open(output, state)
            share_folders.refuse_others(output, share)
            own.mkdir(parents=True, exist_ok=True)
            alone.enter_context(lock.hold(own, flag="--output", work="predicts the same share"))
            done = _begin(output, own, mine, options, share)
        _, skipped = predict_mine(done)
        share_folders.finish(own, inputs, skipped)
        with lock.hold(output, flag="--output", work="predicts", max_wait=_MAX_WAIT):
            return share_folders.join(output, own, inputs, options, complete=complete)


@contextlib.contextmanager
def _explained(output: pathlib.Path) -> Iterator[None]:
    try:
        with disk.explained(output):
            yield
    except OSError as error:
        if error.filename is None:  # of a write; errors of opening name their file
            raise UserError(f"{output} cannot be written ({error}).") from error
        raise


def _open(output: pathlib.Path, state: Mapping[str, Any]) -> None:
    """Makes the folder that of a prediction which is not complete."""
    _check_folder(output, state)  # it may have been written since
    rows_lib.write_text(output / _STATE, strict_json.dumps(state, indent=2) + "\n")
    for folder in ("masks", "overlays"):
        (output / folder).mkdir(exist_ok=True)


def _begin(
    output: pathlib.Path, own: pathlib.Path, mine: Sequence[Input], options: Options, share: shares.Share
) -> dict[str, Row]:
    """Rows of what is done; drops those of files that are predicted again, and what a kill left of a large image."""
    shutil.rmtree(own / file_writing.SCRATCH, ignore_errors=True)
    share_folders.begin(output, own)
    found = share_folders.read_rows(output)
    done = rows_lib.find_done((row for rows in found.values() for row in rows), mine, output, options)
    again = {item.stem for item in mine} - done.keys()  # a kill must not leave rows of files that are half written
    for folder, rows in found.items():
        kept = [row for row in rows if row["stem"] not in again]
        if folder != own and len(kept) < len(rows) and not share_folders.is_of(folder, share):
            rows_lib.write(folder, kept)
        found[folder] = kept
    if own == output:
        rows_lib.write(output, {row["stem"]: row for rows in reversed(found.values()) for row in rows}.values())
        share_folders.remove(output)
    else:
        # Also those that are another process's by now, where files were added.
        rows_lib.write(own, ({row["stem"]: row for row in found.get(own, ())} | done).values())
    return done


def find_rest(
    inputs: Sequence[Input], output: pathlib.Path, options: Options, *, model: Mapping[str, Any]
) -> list[Input]:
    """The files that `predict` with these arguments would predict; nothing is written.

    Args:
        inputs: the files.
        output: the folder, which need not exist.
        options: what is written.
        model: as of `predict`.

    Raises:
        OptionError: as of `predict`.
        LockedError: as of `predict`.
        UserError: if the folder cannot be written.
    """
    _check_folder(output, {"model": dict(model), "options": dataclasses.asdict(options)})
    lock.check_free(output, flag="--output", work="predicts")
    share_folders.refuse_others(output, shares.ALL)
    try:
        disk.check_writable(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error}).") from error
    rows = (row for rows in share_folders.read_rows(output).values() for row in rows)
    done = rows_lib.find_done(rows, inputs, output, options)
    return [item for item in inputs if item.stem not in done]


def predict_some(
    predictor: Predictor,
    chosen: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    *,
    all_inputs: Sequence[Input],
    results: Mapping[str, Any],
    update: Callable[[int], None],
) -> None:
    """Predicts some of the files into another folder, by the programs that predict them among all.

    Args:
        predictor: the model.
        chosen: these files.
        output: a new folder.
        options: what is written.
        all_inputs: the files of the whole prediction.
        results: as of `predict`.
        update: is called with 1 after each file.
    """
    output.mkdir()
    _open(output, {})
    of_model = trust.find_model_flags(results)
    file_writing.predict(
        predictor, chosen, output, options, own=output, all_inputs=all_inputs, of_model=of_model, update=update
    )


def _check_folder(output: pathlib.Path, state: dict[str, Any]) -> None:
    """Raises OptionError for a folder with anything of others: nothing there is overwritten."""
    if not output.exists() or (output.is_dir() and all(map(_is_of_start, output.iterdir()))):
        return
    try:
        found = json.loads((output / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.keys() != state.keys():
        raise OptionError(f"output={str(output)!r} is not empty, and holds no predictions. Choose another folder.")
    if found != state:
        raise OptionError(
            f"output={str(output)!r} holds predictions of another model, or made with other options. Choose another"
            " folder, or delete it."
        )


def _is_of_start(path: pathlib.Path) -> bool:
    """Whether a call that was killed before it had written anything else leaves this file."""
    return path.name == lock.NAME or path.match(f"{_STATE}.*.new")
