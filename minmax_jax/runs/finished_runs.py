"""A run after its training: evaluated on any of its splits, and given a second stage."""

import dataclasses
import logging
import pathlib
from typing import Any, NamedTuple

import ml_collections

from minmax_jax.base import errors
from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.configs import common
from minmax_jax.distributed import hosts
from minmax_jax.evaluation.evaluators import Row
from minmax_jax.runs import final_test, second_stage
from minmax_jax.runs.building import creation, fields
from minmax_jax.runs.building.run import Run, build_run
from minmax_jax.runs.folder import checkpoints, results
from minmax_jax.runs.folder import workdir as workdir_lib
from minmax_jax.training import state as state_lib

logger = logging.getLogger(__name__)


def read_config(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run, checked.

    Raises:
        UserError: if there is none, or one of a version with other fields.
    """
    config = workdir_lib.read_config(folder)
    try:
        fields.check_fields(config, common.get_config())
    except errors.ConfigError as error:
        raise errors.ConfigError(
            f"{folder / 'config.json'} is of another version of this library. Change these fields in it:\n{error}"
        ) from error
    return config


def evaluate_workdir(
    workdir: str | pathlib.Path,
    split: str,
    *,
    crf: bool = False,
    flips: bool | None = None,
    scales: tuple[float, ...] | None = None,
    refine: bool | None = None,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Evaluates the selected model of a run on one of its splits, and writes the rows of that split to the folder.

    Args:
        workdir: folder of the run.
        split: "train", "validation" or "test".
        crf: whether a CRF refines the masks of the first stage, with the parameters of the configuration.
        flips: whether predictions are means over the flips of training; None: as configured.
        scales: sizes that predictions are means over; None: as configured.
        refine: whether masks are those of the second stage; None: if the run has one.
        data_dir: folder of the prepared data, if it moved.

    Returns:
        As in `results.json`, under the name of the split.

    Raises:
        UserError: if there is no such run or split, if the checkpoint is damaged, or for a CRF on a second stage.
    """
    folder = local_path("workdir", workdir).absolute()
    config = read_config(folder)
    changes = {"evaluation.flips": flips, "evaluation.scales": scales}
    changes |= {"data.dir": data_dir, "refine.enabled": refine}
    config.update_from_flattened_dict({name: value for name, value in changes.items() if value is not None})
    model = open_model(folder, config, split)
    if refine and model.decoder is None:
        raise OptionError(f"workdir={str(workdir)!r} has no second stage for this model: run minmax-jax refine.")
    run = _with_crf(model) if crf else model.run
    rows, content = final_test.evaluate_model(run, model.state, split, wall_seconds=model.seconds)
    content |= {"crf": config.evaluation.crf.to_dict()} if crf else {}
    # Rows of other data would stand next to results of the run's.
    if hosts.is_main_host() and not workdir_lib.differing_splits(folder, model.run.splits):
        _keep_rows(folder / _name_of_rows(split, crf=crf or None, flips=flips, refine=refine, scales=scales), rows)
    return content


class SelectedModel(NamedTuple):
    """The selected model of a run.

    Attributes:
        run: with the masks of the second stage, if there is one.
        state: of the first stage.
        decoder: parameters of the second stage, or None.
        seconds: of the training.
    """

    run: Run
    state: state_lib.TrainState
    decoder: Any | None
    seconds: float


def _with_crf(model: SelectedModel) -> Run:
    """The run whose masks a CRF refines."""
    if model.decoder is not None:
        raise OptionError("crf=True refines masks of the first stage, and this run has a second: add refine=False.")
    return dataclasses.replace(model.run, refine_fn=creation.create_crf(model.run.options.evaluation.crf))


def open_model(folder: pathlib.Path, config: ml_collections.ConfigDict, split: str) -> SelectedModel:
    """Opens the selected model of a run.

    Args:
        folder: of the run.
        config: of the run. The options `refine` of the opened run are those of the saved second stage, disabled where
            there is none for this model: results describe the masks that are evaluated.
        split: that the run must have.

    Raises:
        UserError: if there is no such run or split, or if the checkpoint is damaged.
    """
    run, state, seconds = _open(folder, config, split)
    saved = second_stage.read_saved(folder, state) if config.refine.enabled else None
    if saved is None:
        without = dataclasses.replace(run.options, refine=dataclasses.replace(run.options.refine, enabled=False))
        return SelectedModel(dataclasses.replace(run, options=without), state, None, seconds)
    # Not those of the configuration: a second stage with others may have been started, and killed.
    stage, options = saved
    run = dataclasses.replace(run, options=dataclasses.replace(run.options, refine=options))
    return SelectedModel(second_stage.refine(run, stage), state, stage.decoder, seconds)


def refine_workdir(
    workdir: str | pathlib.Path, changes: dict[str, Any], *, data_dir: str | None = None
) -> dict[str, Any]:
    """Gives a run a second stage, tests it, and replaces results, predictions, model and pictures.

    Args:
        workdir: folder of the run.
        changes: fields of group `refine` that differ from the run's configuration, by name.
        data_dir: folder of the prepared data, if it moved.

    Returns:
        The new content of `results.json`.

    Raises:
        UserError: if there is no such run, if a field cannot be used, if the data are not those of the training, or if
            another process trains in the folder.
    """
    folder = local_path("workdir", workdir).absolute()
    config = read_config(folder)
    config.refine.update(changes | {"enabled": True})
    if data_dir is not None:
        config.data.dir = data_dir
    run, state, seconds = _open(folder, config, "train")
    if differing := workdir_lib.differing_splits(folder, run.splits):
        raise workdir_lib.WorkdirError(
            f"{folder} belongs to a run on other data: {' '.join(differing)} Give the same data by data_dir: its model"
            " would be replaced."
        )
    with workdir_lib.hold(folder):
        return final_test.test_selected(run, folder, state, wall_seconds=seconds)


def _open(
    folder: pathlib.Path, config: ml_collections.ConfigDict, split: str
) -> tuple[Run, state_lib.TrainState, float]:
    """The run, the state of its selected model, and the seconds of its training."""
    run = build_run(config)
    if split not in run.splits:
        raise OptionError(f"split={split!r} must be one of {tuple(run.splits)}.")
    for difference in workdir_lib.differing_splits(folder, run.splits):
        logger.warning("These are not the data of the training. %s", difference)
    restored = _restore_selected(folder, run.state)
    if restored is None:
        raise OptionError(f"workdir={str(folder)!r} holds no validated model yet.")
    return run, *restored


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


def _name_of_rows(split: str, *, scales: tuple[float, ...] | None = None, **switches: bool | None) -> str:
    """Name of the file with the rows of a split; each way of evaluating that was asked for has its own."""
    options = [f"{'' if value else 'no'}{name}" for name, value in switches.items() if value is not None]
    options += [f"scales-{'-'.join(map('{:g}'.format, scales))}"] if scales else []
    if split == "test" and not options:
        return final_test.PREDICTIONS
    return "_".join(["predictions", split, *options]) + ".jsonl"


def _keep_rows(path: pathlib.Path, rows: list[Row]) -> None:
    """Writes rows; evaluation also works in a folder that cannot be written."""
    try:
        results.write_rows(path, rows)
    except OSError as error:
        logger.warning("The rows of this evaluation were not kept: %s cannot be written (%s).", path, error)
