"""The output folder of a prediction: files of each image, tables of all, and last the manifest that says complete."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import csv
import dataclasses
import json
import logging
import pathlib
import shutil
from typing import Any

from minmax_jax import progress
from minmax_jax.errors import OptionError
from minmax_jax.evaluation import trust
from minmax_jax.prediction import batches, coco, image_outputs
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.predicted_images import Skipped
from minmax_jax.runs.predictor import Predictor

logger = logging.getLogger(__name__)
ROWS, TABLE, COCO, MANIFEST = "predictions.jsonl", "predictions.csv", "coco.json", "manifest.json"
_STATE = "options.json"  # what the files of an unfinished prediction were made with
_SCRATCH = "unfinished"  # folder for what does not fit in memory


def predict(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    *,
    model: Mapping[str, Any],
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """Predicts files into a folder; after a kill, the same call resumes. Files that changed are predicted again.

    Args:
        predictor: the model.
        inputs: the files.
        output: the folder, created if there is none.
        options: what is written.
        model: identifies the model and what is done at test time, as JSON values.
        results: content of the run's `results.json`, {} without.

    Returns:
        The content of the manifest; "skipped" lists the files that could not be predicted.

    Raises:
        OptionError: if the folder holds anything but predictions of this model with these options.
    """
    state = {"model": dict(model), "options": dataclasses.asdict(options)}
    rows = _open(output, state)
    done = {row["stem"]: row for row in rows if (output / row["mask"]).exists()}
    (output / MANIFEST).unlink(missing_ok=True)
    rest = [
        item for item in inputs if item.stem not in done or done[item.stem].get("file") != _describe_file(item.path)
    ]
    with progress.meter("Prediction", total=len(inputs), unit="image", initial=len(inputs) - len(rest)) as update:
        of_model = trust.find_model_flags(results)
        rows, skipped = _predict_rest(predictor, rest, output, options, of_model=of_model, update=update)
    done |= {row["stem"]: row for row in rows}
    written = [done[item.stem] for item in inputs if item.stem in done]
    _warn_of_unknown_magnification(written, predictor.card.get("microns_per_pixel"))
    # Rows of other files, of an earlier call, are left out.
    _write(output / ROWS, "".join(json.dumps(row) + "\n" for row in written))
    _write_tables(output, written, options, predictor.class_names)
    manifest = state | {
        "num_images": len(written),
        "num_flagged": sum(bool(row["flags"]) for row in written),
        "skipped": skipped,
        "files": {row["stem"]: row["path"] for row in written},
    }
    _write(output / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return manifest


def _predict_rest(
    predictor: Predictor,
    rest: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    *,
    of_model: Sequence[str],
    update: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Writes the files of each image, and its row, at once; returns the rows, and the files that were skipped."""
    rows, skipped, scratch = [], [], output / _SCRATCH
    files = {item.stem: _describe_file(item.path) for item in rest}  # before they are read
    with (
        (output / ROWS).open("a", encoding="utf-8") as file,
        # Closed at once after an error: it then deletes its files.
        contextlib.closing(batches.predict(predictor, rest, options, scratch=scratch)) as answers,
    ):
        for answer in answers:
            update(1)
            if isinstance(answer, Skipped):
                logger.warning("Skipped: %s", answer.reason)
                skipped.append({"path": str(answer.input.path), "reason": answer.reason})
                continue
            names = predictor.class_names
            row = image_outputs.write(
                output,
                answer,
                options,
                class_names=names,
                background_classes=predictor.background_classes,
                of_model=of_model,
                scratch=scratch,
            )
            row["file"] = files[answer.source.input.stem]
            file.write(json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
    return rows, skipped


def _warn_of_unknown_magnification(rows: Sequence[dict[str, Any]], of_training: float | None) -> None:
    unknown = sum(row["microns_per_pixel"] is None for row in rows)
    if unknown and of_training:
        logger.warning(
            "%d of %d images do not say how many microns a pixel has: %.3g is assumed, as in training. Give it by"
            " microns_per_pixel if it is another.",
            *(unknown, len(rows), of_training),
        )


def _open(output: pathlib.Path, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that are there; what a kill cut off, a last line or the files of a large image, is dropped."""
    _check_folder(output, state)
    output.mkdir(parents=True, exist_ok=True)
    _write(output / _STATE, json.dumps(state, indent=2) + "\n")
    for folder in ("masks", "overlays"):
        (output / folder).mkdir(exist_ok=True)
    shutil.rmtree(output / _SCRATCH, ignore_errors=True)
    rows = []
    if (output / ROWS).exists():
        for line in (output / ROWS).read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        _write(output / ROWS, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _check_folder(output: pathlib.Path, state: dict[str, Any]) -> None:
    """Raises OptionError for a folder with anything of others: nothing there is overwritten."""
    if not output.exists() or (output.is_dir() and {path.name for path in output.iterdir()} <= {f"{_STATE}.new"}):
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


def _describe_file(path: pathlib.Path) -> dict[str, Any] | None:
    """Identity of a file: path, size and time of modification; None if it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return {"path": str(path.resolve()), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _write(path: pathlib.Path, text: str) -> None:
    replacement = path.with_name(f"{path.name}.new")
    replacement.write_text(text, encoding="utf-8")
    replacement.replace(path)


def _write_tables(
    output: pathlib.Path, rows: Sequence[dict[str, Any]], options: Options, class_names: Sequence[str]
) -> None:
    columns = ["path", "stem", "height", "width", "microns_per_pixel", "rescaling", "num_tiles", "class", "probability"]
    columns += [
        "foreground_entropy",
        "background_entropy",
        "foreground_share",
        "num_instances",
        "threshold",
        "flags",
        *(f"p_{name}" for name in class_names),
    ]
    replacement = output / f"{TABLE}.new"
    # Names of files need not be UTF-8.
    with replacement.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        table.writeheader()
        for row in rows:
            of_classes = {f"p_{name}": value for name, value in row["probabilities"].items()}
            table.writerow(row | of_classes | {"flags": "; ".join(row["flags"])})
    replacement.replace(output / TABLE)
    if options.coco:
        replacement = output / f"{COCO}.new"
        with replacement.open("w", encoding="utf-8") as file:
            coco.write(file, _coco_images(output, rows), class_names)
        replacement.replace(output / COCO)


def _coco_images(output: pathlib.Path, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], list]]:
    for row in rows:
        yield row, json.loads((output / f"coco/{row['stem']}.json").read_text())
