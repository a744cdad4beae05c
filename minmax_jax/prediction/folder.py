"""The output folder of a prediction: files of each image, tables of all, and last the manifest that says complete."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import json
import logging
import pathlib
import shutil
from typing import Any

from minmax_jax.base import disk, lock, progress, strict_json, threads
from minmax_jax.base.errors import OptionError, UserError
from minmax_jax.data import image_endings, lossy_reading, pixel_size
from minmax_jax.evaluation import trust
from minmax_jax.prediction import batches
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.outputs import image_outputs, tables_of_images
from minmax_jax.prediction.predicted_images import Predicted, Skipped
from minmax_jax.runs.predictor import Predictor

logger = logging.getLogger(__name__)
ROWS, TABLE, COCO, MANIFEST = "predictions.jsonl", "predictions.csv", "coco.json", "manifest.json"
_STATE = "options.json"  # what the files of an unfinished prediction were made with
_SCRATCH = "unfinished"  # folder for what does not fit in memory
_REMEDIES = {
    "dark": "A model of data that were prepared with --intensity=percentiles reads them.",
    "channels": "A model of data that were prepared with --channels=0,1,2, or others, reads those.",
}


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
) -> dict[str, Any]:
    """Predicts files into a folder; after a kill, the same call resumes.

    Files that changed, and those of which an output is missing, are predicted again.

    Args:
        predictor: the model.
        inputs: the files.
        output: the folder, created if there is none.
        options: what is written.
        model: identifies the model and what is done at test time, as JSON values: another one needs another folder.
        results: content of the run's `results.json`, {} without.
        left_out: numbers of files by ending that folders hold and that are no images, for log and manifest.
        workdir: where the model is, for the manifest: a prediction resumes with a copy of the run.

    Returns:
        The content of the manifest; "skipped" lists the files that could not be predicted.

    Raises:
        OptionError: if the folder holds anything but predictions of this model with these options.
        UserError: if the folder cannot be written.
        LockedError: if another process predicts into the folder.
    """
    state = {"model": dict(model), "options": dataclasses.asdict(options)}
    _check_folder(output, state)
    output.mkdir(parents=True, exist_ok=True)
    with lock.hold(output, flag="--output", work="predicts"):
        _check_folder(output, state)  # it may have been written since
        try:
            with disk.explained(output):
                further = {"workdir": workdir, "left_out": dict(left_out or {})}
                return _predict(predictor, inputs, output, options, state, results=results, further=further)
        except OSError as error:
            if error.filename is None:  # of a write; errors of opening name their file
                raise UserError(f"{output} cannot be written ({error}).") from error
            raise


def _predict(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    state: dict[str, Any],
    *,
    results: Mapping[str, Any],
    further: dict[str, Any],
) -> dict[str, Any]:
    rows = _open(output, state)
    done = {row["stem"]: row for row in rows}
    (output / MANIFEST).unlink(missing_ok=True)
    rest = _find_rest(done, inputs, output, options)
    again = {item.stem for item in rest} & done.keys()
    if again:  # a kill must not leave rows of files that are half written
        done = {stem: row for stem, row in done.items() if stem not in again}
        _write(output / ROWS, "".join(strict_json.dumps(row) + "\n" for row in done.values()))
    with progress.meter("Prediction", total=len(inputs), unit="image", initial=len(inputs) - len(rest)) as update:
        of_model = trust.find_model_flags(results)
        rows, skipped = _predict_rest(
            predictor, rest, output, options, all_inputs=inputs, of_model=of_model, update=update
        )
    done |= {row["stem"]: row for row in rows}
    written = [done[item.stem] for item in inputs if item.stem in done]
    for line in lossy_reading.summarize([row.get("not_read", {}) for row in written], remedies=_REMEDIES):
        logger.warning("%s", line)
    if further["left_out"]:
        logger.warning("%s.", image_endings.describe(further["left_out"]))
    _describe_magnifications(written, predictor.card.get("microns_per_pixel"))
    # Rows of other files, of an earlier call, are left out.
    _write(output / ROWS, "".join(strict_json.dumps(row) + "\n" for row in written))
    tables_of_images.write_csv(output / TABLE, written, predictor.class_names, scores=predictor.scores)
    if options.coco:
        tables_of_images.write_coco(output / COCO, inputs, done, options, predictor.class_names)
    manifest = (
        state
        | further
        | {
            "num_images": len(written),
            "num_flagged": sum(bool(row["flags"]) for row in written),
            "skipped": skipped,
            "files": {row["stem"]: row["path"] for row in written},
        }
    )
    _write(output / MANIFEST, strict_json.dumps(manifest, indent=2) + "\n")
    return manifest


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
    try:
        disk.check_writable(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error}).") from error
    return _find_rest({row["stem"]: row for row in _read_rows(output)}, inputs, output, options)


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
    _predict_rest(predictor, chosen, output, options, all_inputs=all_inputs, of_model=of_model, update=update)


def _find_rest(
    done: Mapping[str, dict[str, Any]], inputs: Sequence[Input], output: pathlib.Path, options: Options
) -> list[Input]:
    """The files without a row of `done` by stem, or with one that is not up to date."""
    return [item for item in inputs if not _is_done(done.get(item.stem), item, output, options)]


def _is_done(row: dict[str, Any] | None, item: Input, output: pathlib.Path, options: Options) -> bool:
    """Whether the file is as it was when this row was written, and all its outputs are there."""
    if row is None or row.get("file") != _describe_file(item.path):
        return False
    return all((output / path).is_file() for path in image_outputs.files(item.stem, options).values())


def _predict_rest(
    predictor: Predictor,
    rest: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    *,
    all_inputs: Sequence[Input],
    of_model: Sequence[str],
    update: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Writes the files of each image in threads, then its row; returns the rows, and the files that were skipped."""
    rows, skipped, kinds, scratch = [], [], set(), output / _SCRATCH
    files = {item.stem: _describe_file(item.path) for item in rest}  # before they are read

    def write(answer: Predicted | Skipped) -> dict[str, Any] | Skipped:
        if isinstance(answer, Skipped):
            return answer
        with disk.explained(output, needed_bytes=image_outputs.max_bytes(answer, options)):
            row = image_outputs.write(
                output,
                answer,
                options,
                class_names=predictor.class_names,
                scores=predictor.scores,
                background_classes=predictor.background_classes,
                of_model=of_model,
                scratch=scratch,
            )
        return row | {"file": files[answer.source.input.stem]}

    with (
        (output / ROWS).open("a", encoding="utf-8") as file,
        # Closed at once after an error: it then deletes its files.
        contextlib.closing(
            batches.predict(predictor, rest, options, scratch=scratch, all_inputs=all_inputs)
        ) as answers,
        contextlib.closing(
            threads.map_in_order(
                write,
                answers,
                num_threads=batches.NUM_THREADS,
                num_ahead=max(batches.NUM_THREADS, options.batch_size),
                is_alone=_is_on_disk,
            )
        ) as written,
    ):
        for row in written:
            update(1)
            if isinstance(row, Skipped):
                skipped.append({"path": str(row.input.path), "reason": row.reason})
                kind = row.reason.replace(str(row.input.path), "")
                if kind not in kinds:  # a line each would hide what else is said
                    logger.warning("Skipped: %s", row.reason)
                kinds.add(kind)
                continue
            file.write(strict_json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
    if more := len(skipped) - len(kinds):
        logger.warning("%d more images were skipped for the same reasons: %s lists all.", more, output / MANIFEST)
    return rows, skipped


def _is_on_disk(answer: Predicted | Skipped) -> bool:
    """Whether an answer has files that are deleted when the next one is asked for."""
    return isinstance(answer, Predicted) and isinstance(answer.mask, DiskArray)


def _describe_magnifications(rows: Sequence[dict[str, Any]], of_training: float | None) -> None:
    """Says in a line each, however many images there are, which pixel sizes are used, ignored and unknown."""
    if rescaled := [row for row in rows if row["rescaling"] != 1]:
        factors = sorted({f"{row['rescaling']:.3g}" for row in rescaled}, key=float)
        logger.info(
            "%d of %d images have another pixel size than the images of the training, %.3g microns; %s has %.3g microns"
            " a pixel. They are resized by %s.",
            *(len(rescaled), len(rows), of_training, rescaled[0]["path"], rescaled[0]["microns_per_pixel"]),
            factors[0] if len(factors) == 1 else f"{factors[0]} to {factors[-1]}",
        )
    ignored = [(row["path"], row["ignored_pixel_size"]) for row in rows if row.get("ignored_pixel_size")]
    described = [(path, found["microns"], found["reason"]) for path, found in ignored]
    for line in pixel_size.describe_ignored(described, len(rows)):
        logger.warning("%s", line)
    unknown = sum(row["microns_per_pixel"] is None for row in rows) - len(ignored)
    if unknown and of_training:
        logger.warning(
            "%d of %d images do not say how many microns a pixel has: %.3g is assumed, as in training. Give it by"
            " microns_per_pixel if it is another.",
            *(unknown, len(rows), of_training),
        )


def _open(output: pathlib.Path, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that are there; what a kill cut off, a last line or the files of a large image, is dropped."""
    _write(output / _STATE, strict_json.dumps(state, indent=2) + "\n")
    for folder in ("masks", "overlays"):
        (output / folder).mkdir(exist_ok=True)
    shutil.rmtree(output / _SCRATCH, ignore_errors=True)
    rows = _read_rows(output)
    if (output / ROWS).exists():
        _write(output / ROWS, "".join(strict_json.dumps(row) + "\n" for row in rows))
    return rows


def _read_rows(output: pathlib.Path) -> list[dict[str, Any]]:
    """The rows that are there, up to a line that a kill cut off."""
    rows = []
    if (output / ROWS).exists():
        for line in (output / ROWS).read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


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


def _describe_file(path: pathlib.Path) -> dict[str, Any] | None:
    """Identity of a file: path, size and time of modification; None if it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return {"path": str(path.resolve()), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _write(path: pathlib.Path, text: str) -> None:
    with disk.replacing(path) as replacement:
        replacement.write_text(text, encoding="utf-8")
