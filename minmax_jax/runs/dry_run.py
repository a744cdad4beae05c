"""What a training will take, from some of its steps: their result is not kept, and the workdir is only read."""

import pathlib
import time
from typing import NamedTuple

import ml_collections
import numpy as np

from minmax_jax.runs import estimate, final_test, measured_parts, second_stage, training
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building.run import Run
from minmax_jax.runs.estimate import Part
from minmax_jax.runs.folder import checkpoints
from minmax_jax.runs.folder import workdir as workdir_lib
from minmax_jax.runs.second_stage import SecondStage
from minmax_jax.training.state import TrainState

_LEFT_OUT = "the start of Python, checkpoints, intervals, pictures and the report"


class Rest(NamedTuple):
    """What a run has left to do.

    Attributes:
        state: that it goes on from; of a run that has all its steps, that of the selected model.
        total_steps: of the whole training.
        stage: its second stage, if that is trained already.
        is_finished: whether nothing is left.
    """

    state: TrainState
    total_steps: int
    stage: SecondStage | None
    is_finished: bool


def describe(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> str:
    """Checks what a training checks before its first step, measures some steps, and says what the whole will take.

    Args:
        config: all fields of configs/common.py.
        workdir: folder of the run, which need not exist.

    Returns:
        Images, shapes, steps, expected minutes by part, and memory, in lines.

    Raises:
        UserError: as `training.train_and_evaluate`.
    """
    started, others = time.perf_counter(), estimate.describe_others()
    run, state = training.prepare(config, workdir)
    folder = workdir_lib.check(workdir, config, run.splits)
    rest, first_step = _find_rest(run, state, folder)
    lines = [f"Dry run: nothing is written to {workdir}.", *_describe_run(run, rest, first_step)]
    if rest.is_finished:
        return "\n".join([*lines, "Expected: nothing to do, this run is finished."])
    start = Part("start", time.perf_counter() - started, "data, networks and weights: measured")
    return "\n".join([*lines, *_measure(run, rest, first_step, start), *others])


def _find_rest(run: Run, state: TrainState, folder: pathlib.Path) -> tuple[Rest, int]:
    """What is left, and the step that the run goes on from, 0 of a fresh one."""
    options, record, stage = run.options, checkpoints.RunRecord(), None
    if (folder / "checkpoints").is_dir():
        saved = checkpoints.Checkpoints(folder / "checkpoints", read_only=True)
        state, record = saved.restore_newest(run.state) or (state, record)
    first_step, total_steps = int(state.step), options.train.epochs * run.steps_per_epoch
    if first_step < total_steps:
        return Rest(state, total_steps, None, is_finished=False), first_step
    if final_test.read_results(folder, options, record.selected_step):
        return Rest(state, total_steps, None, is_finished=True), first_step
    state, _ = saved.restore(record.selected_step, run.state)
    if options.refine.enabled:
        stage = second_stage.restore(folder, options.refine, state)
    return Rest(state, total_steps, stage, is_finished=False), first_step


def _describe_run(run: Run, rest: Rest, first_step: int) -> list[str]:
    options, splits = run.options, run.splits
    sizes = np.concatenate([split.sizes for split in splits.values()])
    names = {"train": "training", "validation": "validation", "test": "test"}
    counts = ", ".join(f"{len(splits[name])} {title}" for name, title in names.items())
    crop = "x".join(map(str, data_splits.crop_size(options.data, splits["train"])))
    start = training.describe_start(options.model.pretrained, first_step)
    lines = [
        f"Images: {counts}, of {len(splits['train'].class_names)} classes, {estimate.describe_range(sizes)}.",
        f"Shapes: {estimate.describe_shapes(sizes, run.shapes)}; training crops of {crop}.",
        f"Steps: {rest.total_steps}, {run.steps_per_epoch} per epoch, with {options.batch_size} images each;"
        f" {rest.total_steps - first_step} remain, from {start}.",
    ]
    if options.refine.enabled:
        is_there = rest.is_finished or rest.stage is not None
        lines.append(f"Second stage: {options.refine.num_steps} steps{', done' if is_there else ''}.")
    return lines


def _measure(run: Run, rest: Rest, first_step: int, start: Part) -> list[str]:
    """The lines with minutes and memory."""
    state, stage, planned = rest.state, rest.stage, _planned_caches(run)
    parts, durations = [start], []
    if first_step < rest.total_steps:
        state, steps, of_step = measured_parts.measure_steps(run, state, range(first_step, rest.total_steps))
        validations, of_validation = measured_parts.measure_validations(run, state, first_step, rest.total_steps)
        parts += [steps, validations]
        durations += [of_step, of_validation]
    if run.options.refine.enabled and stage is None:
        measured = measured_parts.measure_second_stage(run, state)
        stage, planned["images and features of the second stage"] = measured.stage, measured.num_bytes
        parts += measured.parts
        durations += measured.durations
    tested = second_stage.refine(run, stage) if stage else run
    of_test, found = measured_parts.measure_test(tested, state, with_first_stage=stage is not None)
    compiling, kept = estimate.compiling([*durations, *found])
    return [
        estimate.describe_parts([*parts, *of_test, compiling], kept=kept, left_out=_LEFT_OUT),
        f"Memory: {estimate.describe_memory(planned)}.",
    ]


def _planned_caches(run: Run) -> dict[str, int]:
    """Bytes of images that are kept in memory once they were read."""
    limit = int(run.options.data.cache_gib * 2**30)
    sizes = [3 * int(split.sizes.astype(np.int64).prod(axis=1).sum()) for split in run.splits.values()]
    return {"images in memory": sum(min(size, limit) for size in sizes)}
