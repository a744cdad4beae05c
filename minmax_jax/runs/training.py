"""Training from a configuration to results: the program behind `experiments.train`."""

import functools
import json
import logging
import math
import pathlib
import time

import jax
import ml_collections
import numpy as np

from minmax_jax.distributed import host_checks, pmap
from minmax_jax.evaluation import selection
from minmax_jax.runs import build, build_data, checkpoints, final_test, metric_writers, timing
from minmax_jax.runs import workdir as workdir_lib
from minmax_jax.step import train_step

logger = logging.getLogger(__name__)


class DivergedError(RuntimeError):
    """The loss or its gradient is not finite any more; the message names terms and steps."""


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict:
    """Trains, validates, selects and tests; continues where an earlier call in the same folder stopped.

    Writes to the folder `config.json`, `metrics.jsonl`, `checkpoints/`, and at the end `results.json` and
    `pictures/`.

    Args:
        config: all fields of configs/common.py.
        workdir: folder of the run.

    Returns:
        What `results.json` holds.

    Raises:
        ValueError: for a configuration, a dataset or a folder that cannot be used, before anything is computed.
        CheckpointError: if a checkpoint that is needed is damaged.
        DivergedError: if the loss becomes infinite or not a number.
    """
    started = time.monotonic()
    parts = build.create_parts(config)
    state, run = build.load_pretrained(config, parts.state), checkpoints.Progress()
    folder = workdir_lib.open_workdir(workdir, config)
    host_checks.check_inputs(config, parts.splits, folder)
    saved = checkpoints.Checkpoints(folder / "checkpoints")
    batches = build_data.create_train_batches(config, parts.splits["train"])
    restored = saved.restore_newest(state, batches)
    if restored is not None:
        state, run = restored
    host_checks.check_state(state)
    first_step, total_steps = int(state.step), config.train.epochs * parts.steps_per_epoch
    if first_step == total_steps and (folder / "results.json").exists():
        logger.info("This run is finished.")
        return json.loads((folder / "results.json").read_text())
    saved.remove_after(first_step)
    started -= run.seconds

    train = pmap.pmap_train_step(
        functools.partial(
            train_step,
            model=parts.model,
            tx=parts.tx,
            objective=parts.objective,
            accumulation=config.train.accumulation,
            average_decay=config.train.average_decay,
        )
    )
    writer = metric_writers.MetricWriter(folder, first_step=first_step, tensorboard=config.train.tensorboard)
    eval_steps = config.train.eval_every * parts.steps_per_epoch
    logger.info("Steps %d to %d, %d an epoch.", first_step + 1, total_steps, parts.steps_per_epoch)
    timer, window = timing.StepTimer(), []
    for step in range(first_step + 1, total_steps + 1):
        state, metrics = train(state, pmap.split_among_devices(next(batches)))
        window.append((step, metrics))
        if step == first_step + 1:
            jax.block_until_ready(metrics)
            logger.info("The first step took %.1f s, compilation included.", timer.restart())
        else:
            timer.count_step()
        is_validated = step % eval_steps == 0 or step == total_steps
        is_saved = is_validated or _is_multiple(step, config.train.checkpoint_every)

        if is_saved or step % config.train.log_every == 0:
            means, window = _average(window, saved), []
            rate = timer.close_window()
            left = timer.seconds_left(total_steps - step, math.ceil((total_steps - step) / eval_steps))
            writer.write(step, "train", means | ({"steps_per_second": rate} if rate else {}))
            logger.info(_describe_training(step, total_steps, means, rate, config.batch_size, left))
        if is_validated:
            with timer.pause():
                summary = final_test.evaluate_split(config, parts.splits["validation"], parts.localize, state)
            _select(run, summary, step, config.evaluation)
            writer.write(step, "validation", summary)
            logger.info(_describe_validation(step, summary, run))
        if is_saved:
            run.seconds = time.monotonic() - started
            saved.save(state, batches, run)

    writer.close()
    saved.wait()
    state, _ = saved.restore(run.selected_step, parts.state)
    return final_test.test_selected(config, folder, state, parts, wall_seconds=run.seconds)


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _average(window: list[tuple[int, dict]], saved: checkpoints.Checkpoints) -> dict[str, float]:
    """Means of the metrics of several steps.

    Raises:
        DivergedError: if any of them is not finite.
    """
    window = jax.device_get(window)
    for step, metrics in window:
        broken = [f"{name} is {value}" for name, value in metrics.items() if not np.isfinite(value)]
        if broken:
            saved.wait()  # The last good checkpoint may still be on its way to the disk.
            raise DivergedError(
                f"Training diverged in step {step}: {', '.join(broken)}. The checkpoints of the steps before are kept"
                f" in {saved.folder}. In another workdir, lower config.learning_rate.peak or set"
                " config.optimizer.clip_norm."
            )
    return {name: float(np.mean([metrics[name] for _, metrics in window])) for name in window[0][1]}


def _select(run: checkpoints.Progress, summary: dict, step: int, options: ml_collections.ConfigDict) -> None:
    """Adds a validation to the progress; its model is selected if none before was better."""
    run.validations.append(summary | {"step": step})
    score = selection.score(options.selection, run.validations, window=options.selection_window)
    if score <= run.selected_score:
        run.selected_step, run.selected_score = step, score


def _describe_training(step: int, total_steps: int, means: dict, rate: float, batch_size: int, left: float) -> str:
    return (
        f"step {step}/{total_steps}  loss {means['loss']:.3f} (localizer {means['localizer_loss']:.3f},"
        f" foreground {means['foreground_loss']:.3f}, background {means['background_loss']:.3f},"
        f" size {means['size_loss']:.3f})"
    ) + (f"  {rate:.2f} steps/s  {rate * batch_size:.1f} images/s  {timing.format_seconds(left)} left" if rate else "")


def _describe_validation(step: int, summary: dict, run: checkpoints.Progress) -> str:
    return (
        f"validation {step}  error {summary['classification_error']:.2f} %"
        f" (localizer {summary['localizer_classification_error']:.2f} %)"
        f"  F1+ {summary['f1_foreground']:.1f}  F1- {summary['f1_background']:.1f}"
        f"  entropy {summary['entropy_foreground']:.3f}/{summary['entropy_background']:.3f}"
        + ("  selected" if run.selected_step == step else "")
    )
