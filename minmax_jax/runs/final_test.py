"""Evaluates a trained model on a split: results, a row per image, pictures, and the saved model."""

from collections.abc import Iterator
import contextlib
import logging
import pathlib
from typing import Any

import numpy as np

from minmax_jax import digests, evaluation
from minmax_jax import state as state_lib
from minmax_jax.crf import RefineFn
from minmax_jax.data import dataset
from minmax_jax.distributed import hosts
from minmax_jax.errors import OptionError
from minmax_jax.evaluation import diagnosis, predict_split
from minmax_jax.evaluation.evaluators import Row
from minmax_jax.paths import local_path
from minmax_jax.report import curves, file_names, panels
from minmax_jax.runs import build, build_data, build_model, checkpoints, model_card, results
from minmax_jax.runs import workdir as workdir_lib

logger = logging.getLogger(__name__)


def evaluate_split(
    run: build.Run, split: dataset.Split, state: state_lib.TrainState, *, refine_fn: RefineFn | None = None
) -> tuple[list[Row], dict[str, Any]]:
    """The rows and the summary of a split, whose images the hosts share.

    Args:
        run: the run.
        split: images and annotations.
        state: of the model.
        refine_fn: post-processing of the masks, if any.
    """
    variables = state_lib.inference_variables(state)
    rows = evaluation.evaluate(
        lambda images: run.predict(variables, images),
        dataset.subset(split, hosts.share_of_host(len(split))),
        run.evaluators,
        batch_size=run.config.evaluation.batch_size,
        refine_fn=refine_fn,
    )
    rows = hosts.gather_from_hosts(rows)
    return rows, evaluation.summarize(rows, run.evaluators)


def test_selected(
    run: build.Run, folder: pathlib.Path, state: state_lib.TrainState, *, wall_seconds: float
) -> dict[str, Any]:
    """Tests the selected model; writes predictions, model, `results.json`, and the pictures.

    Args:
        run: the run.
        folder: of the run.
        state: of the selected model.
        wall_seconds: duration of the training.

    Returns:
        The content of `results.json`.
    """
    rows, content = _evaluate(run, state, "test", wall_seconds=wall_seconds)
    if hosts.is_main_host():
        results.write_rows(folder / _name_of_rows("test"), rows)
        _save_model(run, folder, state)
        workdir_lib.write_json(folder / "results.json", content)
        _draw_pictures(run, folder, state)
    return content


def _evaluate(run: build.Run, state, split: str, *, wall_seconds: float) -> tuple[list[Row], dict[str, Any]]:
    logger.info("Evaluating the model of step %d on the %s split.", state.step, split)
    rows, summary = evaluate_split(run, run.splits[split], state, refine_fn=run.refine_fn)
    swaps = _diagnose(run, run.splits[split], state)
    content = results.collect(
        split,
        summary,
        run.config,
        train_labels=run.splits["train"].labels,
        step=int(state.step),
        state_digest=digests.model_digest(state),
        wall_seconds=wall_seconds,
    )
    return rows, content | ({"diagnosis": swaps} if swaps else {})


def _diagnose(run: build.Run, split: dataset.Split, state: state_lib.TrainState) -> dict[str, Any] | None:
    """The swap test, where the method has a classifier that reads regions."""
    if run.classify is None:
        return None
    variables = state_lib.inference_variables(state)

    def classify(images, masks):
        scaled = images.astype(np.float32) / 127.5 - 1
        return run.classify(variables, np.concatenate([scaled, masks.astype(np.float32)], axis=-1))

    rows = diagnosis.score(
        lambda images: run.predict(variables, images),
        classify,
        dataset.subset(split, hosts.share_of_host(len(split))),
        batch_size=run.config.evaluation.batch_size,
    )
    summary = diagnosis.summarize(hosts.gather_from_hosts(rows))
    if not summary["has_evidence"]:
        logger.warning("The masks carry no evidence: %s", results.describe_diagnosis(summary))
    return summary


def _save_model(run: build.Run, folder: pathlib.Path, state: state_lib.TrainState) -> None:
    variables = state_lib.inference_variables(state)
    card = model_card.describe(
        run.config,
        build_model.create_objective(run.config, steps_per_epoch=run.steps_per_epoch),
        class_names=run.splits["train"].class_names,
        crop_size=build_data.crop_size(run.config.data, run.splits["train"]),
        train_labels=run.splits["train"].labels,
        step=int(variables.pop("step")),
        state_digest=digests.model_digest(state),
    )
    model_card.save(folder, card, variables)


def _draw_pictures(run: build.Run, folder: pathlib.Path, state: state_lib.TrainState) -> None:
    """Panels of test images, evenly spaced over the split, and the curves of the run."""
    config, pictures = run.config, folder / "pictures"
    with _warning("The curves", pictures / "curves.png"):
        pictures.mkdir(exist_ok=True)
        curves.draw_curves(
            pictures / "curves.png",
            folder / "metrics.jsonl",
            selected_step=int(state.step),
            log_terms=run.method.log_terms,
        )
    split, variables = run.splits["test"], state_lib.inference_variables(state)
    count = min(config.evaluation.num_pictures, len(split))
    subset = dataset.subset(split, np.linspace(0, len(split) - 1, count).round().astype(int))
    for prediction in predict_split(
        lambda images: run.predict(variables, images),
        subset,
        batch_size=config.evaluation.batch_size,
        refine_fn=run.refine_fn,
    ):
        path = pictures / file_names.shorten(subset.names[prediction.index], ending=".png")
        with _warning("A picture", path):
            path.parent.mkdir(parents=True, exist_ok=True)  # An image's name may have folders.
            panels.draw_panel(path, subset, prediction, threshold=config.evaluation.threshold)


@contextlib.contextmanager
def _warning(what: str, path: pathlib.Path) -> Iterator[None]:
    """Draws a file that is no result: whatever it fails at, the run goes on."""
    try:
        yield
    except Exception as error:
        logger.warning("%s could not be drawn: %s (%s: %s).", what, path, type(error).__name__, error)


def evaluate_workdir(
    workdir: str | pathlib.Path,
    split: str,
    *,
    crf: bool | None = None,
    flips: bool | None = None,
    scales: tuple[float, ...] | None = None,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Evaluates the selected model of a run on one of its splits, and writes the rows of that split to the folder.

    Args:
        workdir: folder of the run.
        split: "train", "validation" or "test".
        crf: whether a CRF refines the masks, with the parameters of the configuration; None: as configured.
        flips: whether predictions are means over the flips of training; None: as configured.
        scales: sizes that predictions are means over; None: as configured.
        data_dir: folder of the prepared data, if it moved.

    Returns:
        As in `results.json`, under the name of the split.

    Raises:
        UserError: if there is no such run or split, or if the checkpoint is damaged.
    """
    folder = local_path("workdir", workdir).absolute()
    config = workdir_lib.read_config(folder)
    changes = {"evaluation.crf.enabled": crf, "evaluation.flips": flips, "evaluation.scales": scales}
    changes["data.dir"] = data_dir
    config.update_from_flattened_dict({name: value for name, value in changes.items() if value is not None})
    run = build.build_run(config)
    if split not in run.splits:
        raise OptionError(f"split={split!r} must be one of {tuple(run.splits)}.")
    for difference in workdir_lib.differing_splits(folder, run.splits):
        logger.warning("These are not the data of the training. %s", difference)
    restored = _restore_selected(folder, run.state)
    if restored is None:
        raise OptionError(f"workdir={str(workdir)!r} holds no validated model yet.")
    state, seconds = restored
    rows, content = _evaluate(run, state, split, wall_seconds=seconds)
    if hosts.is_main_host():
        _keep_rows(folder / _name_of_rows(split, crf=crf, flips=flips, scales=scales), rows)
    return content


def _restore_selected(
    folder: pathlib.Path, like: state_lib.TrainState, *, attempts: int = 5
) -> tuple[state_lib.TrainState, float] | None:
    """The selected model and the seconds of its training, None before the first validation.

    Another process may train in the folder, and replace checkpoints while they are read: they are looked up again.
    """
    saved = checkpoints.Checkpoints(folder / "checkpoints", read_only=True)
    before = saved.steps()
    try:
        newest = saved.restore_newest(like)
        if newest is None or not newest[1].selected_step:
            return None
        return saved.restore(newest[1].selected_step, like)[0], newest[1].seconds
    except checkpoints.CheckpointError:
        now = checkpoints.Checkpoints(folder / "checkpoints", read_only=True).steps()
        if attempts == 1 or now == before:
            raise
        return _restore_selected(folder, like, attempts=attempts - 1)


def _name_of_rows(
    split: str, *, crf: bool | None = None, flips: bool | None = None, scales: tuple[float, ...] | None = None
) -> str:
    """Name of the file with the rows of a split; each way of evaluating that was asked for has its own."""
    options = [
        f"{'' if value else 'no'}{name}" for name, value in (("crf", crf), ("flips", flips)) if value is not None
    ]
    options += [f"scales-{'-'.join(map('{:g}'.format, scales))}"] if scales else []
    parts = ["predictions", *([] if split == "test" and not options else [split]), *options]
    return "_".join(parts) + ".jsonl"


def _keep_rows(path: pathlib.Path, rows: list[Row]) -> None:
    """Writes rows; evaluation also works in a folder that cannot be written."""
    try:
        results.write_rows(path, rows)
    except OSError as error:
        logger.warning("The rows of this evaluation were not kept: %s cannot be written (%s).", path, error)
