"""The parts of a training command, each measured on a few steps or images, by the functions that the command calls."""

from collections.abc import Callable
import dataclasses
import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from minmax_jax.data import canvases, dataset
from minmax_jax.distributed import hosts
from minmax_jax.evaluation import diagnosis
from minmax_jax.refinement import decoder_training
from minmax_jax.runs import estimate, final_test, scoring, second_stage
from minmax_jax.runs.building import creation, data_splits
from minmax_jax.runs.building.run import Run
from minmax_jax.runs.estimate import Load, Part
from minmax_jax.runs.measured_work import Duration, measure
from minmax_jax.runs.second_stage import SecondStage
from minmax_jax.training.state import TrainState

_STEPS = 3  # that are timed, after the first
_IMAGES = 16  # of a split that are timed, at least

# What a part takes to trace and compile, and for how many shapes it is compiled.
Compiled = tuple[Duration, int]


def measure_steps(run: Run, state: TrainState, remaining: range) -> tuple[TrainState, Part, Compiled]:
    """Training steps, at places spread evenly over those that remain: erasing starts late and takes longer.

    Args:
        run: the run.
        state: that training goes on from; donated.
        remaining: steps that training has left, the first one that of the state.

    Returns:
        The state after these steps, and the part.
    """
    batches = data_splits.create_train_batches(run.options, run.splits["train"], first_batch=remaining[0])
    few = [next(batches)]
    started = time.perf_counter()
    few += [next(batches) for _ in range(_STEPS)]
    reading = (time.perf_counter() - started) / _STEPS
    places = [remaining[0], *(remaining[int((k + 0.5) / _STEPS * len(remaining))] for k in range(_STEPS))]
    inputs = iter(zip(places, few))

    def step() -> None:
        nonlocal state
        place, batch = next(inputs)
        state, metrics = run.train_step(_at_step(state, place), batch)
        jax.block_until_ready((state, metrics))

    duration = measure(step, repetitions=_STEPS)
    each = max(duration.each, reading)  # images are read while steps compute
    basis = f"{each:.3g} s each, mean of {_STEPS}"
    basis += ", as long as reading a batch takes" if reading > duration.each else ""
    return state, Part(f"{len(remaining)} steps", len(remaining) * each, basis), (duration, 1)


def _at_step(state: TrainState, step: int) -> TrainState:
    """The state as if it was of that step, sharded as before, so that nothing is traced again."""
    number = np.asarray(step, state.step.dtype)
    return state.replace(step=jax.device_put(number, state.step.sharding))


def measure_validations(run: Run, state: TrainState, first_step: int, total_steps: int) -> tuple[Part, Compiled]:
    """All validations that remain.

    Args:
        run: the run.
        state: of any step.
        first_step: that training goes on from.
        total_steps: of the whole training.
    """
    split = run.splits["validation"]
    count = count_validations(first_step, total_steps, run.options.train.eval_every * run.steps_per_epoch)
    found, load = _measure_batches(lambda few: final_test.evaluate_split(run, few, state), run, split)
    part = _part(f"{count} x validation of {len(split)} images", found, load, run, repetitions=count)
    return part, (found, load.num_shapes)


def count_validations(first_step: int, total_steps: int, every: int) -> int:
    """How often a training validates: after each multiple of `every` steps, and after the last.

    Args:
        first_step: that it goes on from.
        total_steps: of the whole training.
        every: steps from one validation to the next.

    Example:
        After steps 6, 9 and 10:

        >>> from minmax_jax.runs import measured_parts
        >>> measured_parts.count_validations(4, 10, 3)
        3
    """
    return total_steps // every - first_step // every + (total_steps % every > 0)


class MeasuredStage(NamedTuple):
    """A second stage after a few steps.

    Attributes:
        stage: as it is after them.
        parts: masks and features, and the decoder's training.
        durations: of these.
        num_bytes: of memory for images and features.
    """

    stage: SecondStage
    parts: list[Part]
    durations: list[Compiled]
    num_bytes: int


def measure_second_stage(run: Run, state: TrainState) -> MeasuredStage:
    """The second stage: the first stage's masks and features, and the decoder's training on these.

    Args:
        run: the run.
        state: of any step.

    Raises:
        OptionError: for a method without a trunk.
    """
    # An untrained model may name a class without a region for each image, and nothing would be left to measure.
    split = dataclasses.replace(_with_region(run.splits["train"]), background_classes=())
    run = dataclasses.replace(run, splits=run.splits | {"train": split})
    collect, groups, refine = second_stage.create_collector(run, state), [], run.options.refine

    def collect_few(few: dataset.Split) -> None:
        groups[:] = collect(few)

    found, load = _measure_batches(collect_few, run, split, num_hosts=1)
    area = np.prod(canvases.assign(split.sizes, run.shapes), axis=1).mean() / np.prod(groups[0].images.shape[1:3])
    bytes_each = area * sum(array.nbytes for array in jax.tree.leaves(groups[0])) / len(groups[0].images)
    num_images = min(len(split), max(1, int(refine.cache_gib * 2**30 / bytes_each)))
    steps = decoder_training.steps(
        groups,
        decoder=creation.create_decoder(run.options.model.trunk),
        options=dataclasses.replace(refine, num_steps=max(refine.num_steps, 1 + _STEPS)),
        seed=run.options.seed,
    )
    params = None

    def step() -> None:
        nonlocal params
        params, terms = next(steps)
        jax.block_until_ready((params, terms))

    of_step = measure(step, repetitions=_STEPS)
    basis = f"{of_step.each:.3g} s each, mean of {_STEPS}; trained once"
    parts = [
        _part(
            f"masks and features of {num_images} images for the second stage",
            *(found, load, run),
            repetitions=num_images / len(split),
        ),
        Part(f"{refine.num_steps} steps of the second stage", refine.num_steps * of_step.each * area, basis),
    ]
    durations = [(found, load.num_shapes), (of_step, load.num_shapes)]
    return MeasuredStage(SecondStage(jax.device_get(params), None), parts, durations, int(num_images * bytes_each))


def _with_region(split: dataset.Split) -> dataset.Split:
    return dataset.subset(split, np.flatnonzero(split.has_region))


def measure_test(run: Run, state: TrainState, *, with_first_stage: bool) -> tuple[list[Part], list[Compiled]]:
    """The test: metrics of all images, the swap test of some, and the choice of a threshold on validation images.

    Args:
        run: with the second stage that is tested, if there is one.
        state: of the first stage.
        with_first_stage: as of `scoring.score`.
    """
    split, validation = run.splits["test"], run.splits["validation"]

    def score(of_run: Run) -> Callable[[dataset.Split], Any]:
        return lambda few: scoring.score(of_run, few, state, with_first_stage=with_first_stage)

    without, load = _measure_batches(score(dataclasses.replace(run, classify=None)), run, split)
    parts = [_part(f"test of {len(split)} images", without, load, run)]
    durations = [(without, load.num_shapes)]
    if run.classify:
        swapped = diagnosis.choose(np.count_nonzero(split.has_region))
        both, _ = _measure_batches(score(run), run, split)
        found = both._replace(each=max(0.0, both.each - without.each))
        parts.append(
            _part(f"swap test of {len(swapped)} images", found, load, run, repetitions=len(swapped) / len(split))
        )
        durations.append((found, load.num_shapes))
    if dataset.any_mask(validation):
        found, load = _measure_batches(lambda few: final_test.choose_threshold(run, few, state), run, validation)
        parts.append(_part(f"threshold from {len(validation)} validation images", found, load, run))
        durations.append((found, load.num_shapes))
    return parts, durations


def _measure_batches(
    work: Callable[[dataset.Split], Any], run: Run, split: dataset.Split, *, num_hosts: int | None = None
) -> tuple[Duration, Load]:
    """Seconds of work on a batch of the most frequent shape, and the batches that the split makes on this host.

    Args:
        work: on some images of the split, of which each of `num_hosts` takes a share.
        run: the run.
        split: the images.
        num_hosts: that share the work; None: all.
    """
    batch_size, num_hosts = run.options.evaluation.batch_size, num_hosts or jax.process_count()
    share = dataset.subset(split, hosts.share_of_host(len(split))) if num_hosts > 1 else split
    load = estimate.find_load(share.sizes, run.shapes, batch_size=batch_size)
    num_batches = math.ceil(_IMAGES / batch_size)
    few = dataset.subset(share, np.resize(load.typical, num_batches * batch_size * num_hosts))
    found = measure(lambda: work(few), repetitions=1)
    return found._replace(each=found.each / num_batches), load


def _part(name: str, found: Duration, load: Load, run: Run, *, repetitions: float = 1) -> Part:
    """A part from the seconds of a batch."""
    of_image = found.each / run.options.evaluation.batch_size
    return Part(name, repetitions * load.num_batches * found.each, f"{of_image:.3g} s an image, measured on some")
