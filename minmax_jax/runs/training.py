"""Training from a configuration to results: the program behind `experiments.train`."""

from collections.abc import Callable, Mapping
import logging
import math
import pathlib
import time

import jax
import ml_collections
import numpy as np

from minmax_jax import evaluation
from minmax_jax.base import disk, interrupts
from minmax_jax.base.errors import UserError
from minmax_jax.base.paths import local_path
from minmax_jax.distributed import host_checks
from minmax_jax.evaluation import selection
from minmax_jax.method import Score, error_name
from minmax_jax.runs import final_test, timing
from minmax_jax.runs.building import creation, data_splits, fields
from minmax_jax.runs.building.run import Run, build_run
from minmax_jax.runs.folder import checkpoints, digests, metric_writers
from minmax_jax.runs.folder import workdir as workdir_lib
from minmax_jax.training.state import TrainState

logger = logging.getLogger(__name__)


class DivergedError(UserError, RuntimeError):
    """Loss, gradient, parameters or predictions are no longer finite; the message names what and the step."""


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> dict:
    """Trains, validates, selects and tests; resumes where an earlier call with the same folder stopped.

    Writes to the folder `config.json`, `metrics.jsonl`, `checkpoints/`, and at the end `predictions.jsonl`,
    `model.safetensors` with `model_card.json`, `results.json` and `pictures/`.

    Args:
        config: all fields of configs/common.py.
        workdir: folder of the run.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: for a configuration, a dataset or a folder that cannot be used, before anything is computed; if
            another process trains in the folder (LockedError); if a checkpoint cannot be written, or one that is
            needed is damaged (CheckpointError); if loss, parameters or predictions are no longer finite
            (DivergedError).
        KeyboardInterrupt: once the save under way is written; the message says how to resume.
    """
    started = time.monotonic()
    run, state = prepare(config, workdir)
    folder = workdir_lib.open_workdir(workdir, config)
    with workdir_lib.hold(folder):
        host_checks.check_shared_folder(folder)
        workdir_lib.claim(folder, config, run.splits)
        saved = checkpoints.Checkpoints(folder / "checkpoints")
        try:
            with interrupts.remembered() as check_interrupts:
                return _train(run, state, folder, saved, started, check_interrupts)
        except OSError as error:
            if not disk.is_full(error):
                raise
            raise workdir_lib.WorkdirError(
                f"{disk.explain(error, folder)} Make room and rerun the same command."
            ) from error
        except KeyboardInterrupt as stop:
            saved.wait()
            last = max(saved.steps(), default=0)
            raise type(stop)(f"Rerun the same command to resume from step {last}.") from None


def prepare(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> tuple[Run, TrainState]:
    """The run, and the state that it starts from unless the folder holds a checkpoint; nothing is written.

    Args:
        config: all fields of configs/common.py.
        workdir: folder of the run.

    Raises:
        UserError: for a configuration, a dataset or pretrained weights that cannot be used.
    """
    run = build_run(config)
    data_splits.warn_of_imbalance(run.options.data, run.splits["train"])
    # Before any host writes: the configuration in the folder is that of the first.
    _check_hosts(config, run)
    # A resumed run does not need the pretrained file any more. A save that was not finished has another name.
    written = (local_path("--workdir", workdir) / "checkpoints").glob("[0-9]*")
    is_fresh = not any(path.name.isdigit() for path in written)
    return run, creation.load_pretrained(run.options.model, run.state) if is_fresh else run.state


def _train(
    run: Run,
    state: TrainState,
    folder: pathlib.Path,
    saved: checkpoints.Checkpoints,
    started: float,
    check_interrupts: Callable[[], None],
) -> dict:
    options = run.options
    restored = saved.restore_newest(run.state)
    state, record = restored or (state, checkpoints.RunRecord())
    host_checks.check_equal(
        {"step": int(state.step), "digest of the state": digests.state_digest(state)},
        advice="Give all hosts the same pretrained weights, and one workdir whose checkpoints all see.",
    )
    first_step, total_steps = int(state.step), options.train.epochs * run.steps_per_epoch
    if first_step == total_steps and (finished := final_test.read_results(folder, options, record.selected_step)):
        logger.info("This run is finished.")
        return finished
    saved.set_aside_after(first_step)
    started -= record.seconds
    batches = data_splits.create_train_batches(options, run.splits["train"], first_batch=first_step)

    writer = metric_writers.MetricWriter(folder, first_step=first_step, tensorboard=options.train.tensorboard)
    eval_steps = options.train.eval_every * run.steps_per_epoch
    logger.info(
        "Steps %d to %d, %d per epoch, from %s, on %d x %s.",
        *(first_step + 1, total_steps, run.steps_per_epoch),
        *(describe_start(options.model.pretrained, first_step), jax.device_count(), jax.devices()[0].device_kind),
    )
    timer, window = timing.StepTimer(), []
    for step in range(first_step + 1, total_steps + 1):
        check_interrupts()
        state, metrics = run.train_step(state, next(batches))
        window.append((step, metrics))
        if step == first_step + 1:
            jax.block_until_ready(metrics)
            logger.info("The first step took %.1f s, compilation included.", timer.restart())
        else:
            timer.count_step()
        is_validated = step % eval_steps == 0 or step == total_steps
        is_saved = is_validated or _is_multiple(step, options.train.checkpoint_every)

        if is_saved or step % options.train.log_every == 0:
            means, window = _average(window, saved), []
            rate = timer.close_window()
            left = timer.seconds_left(total_steps - step, math.ceil((total_steps - step) / eval_steps))
            writer.write(step, "train", means | ({"steps_per_second": rate} if rate else {}))
            progress = _describe_rate(rate, options.batch_size, left)
            logger.info("step %d/%d  %s%s", step, total_steps, _describe_loss(means, run.method.log_terms), progress)
        if is_saved:
            _check_finite(state, step, saved)
        if is_validated:
            with timer.pause():
                summary = _validate(run, state, step, saved)
            _select(record, summary, step, options.evaluation.selection)
            writer.write(step, "validation", summary)
            logger.info(
                _describe_validation(step, summary, run.method.scores, is_selected=record.selected_step == step)
            )
        if is_saved:
            record.seconds = time.monotonic() - started
            saved.save(state, record)

    writer.close()
    saved.wait()
    state, _ = saved.restore(record.selected_step, run.state)
    return final_test.test_selected(run, folder, state, wall_seconds=record.seconds)


def _validate(run: Run, state: TrainState, step: int, saved: checkpoints.Checkpoints) -> dict:
    try:
        return final_test.evaluate_split(run, run.splits["validation"], state)[1]
    except evaluation.NotFiniteError as error:
        raise _diverged(f"after step {step} {error}", saved) from error


def _check_hosts(config: ml_collections.ConfigDict, run: Run) -> None:
    """Compares configuration and data with those of the other hosts."""
    values = {f"config.{name}": value for name, value in fields.flatten(config).items()}
    values |= {f"digest of the {name} split": digests.split_digest(split) for name, split in run.splits.items()}
    host_checks.check_equal(values, advice="Give all hosts the same configuration and copies of the same data.")


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
            raise _diverged(f"in step {step}: {', '.join(broken)}.", saved)
    return {name: float(np.mean([metrics[name] for _, metrics in window])) for name in window[0][1]}


def _check_finite(state: TrainState, step: int, saved: checkpoints.Checkpoints) -> None:
    """Checks what a step has left behind: its metrics are of the parameters before it.

    Raises:
        DivergedError: if a parameter or a statistic is not finite.
    """
    variables = jax.device_get({"average": state.average} | state.variables)
    leaves = jax.tree.leaves_with_path(variables)
    broken = [jax.tree_util.keystr(path, simple=True, separator="/") for path, x in leaves if not np.isfinite(x).all()]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise _diverged(f"the update of step {step} leaves {broken[0]}{more} not finite.", saved)


def _diverged(what: str, saved: checkpoints.Checkpoints) -> DivergedError:
    saved.wait()  # The last good checkpoint may still be being written.
    return DivergedError(
        f"Training diverged: {what} The checkpoints of the steps before are kept in {saved.folder}. In another"
        " workdir, lower config.learning_rate.peak or set config.optimizer.clip_norm."
    )


def _select(record: checkpoints.RunRecord, summary: dict, step: int, rule: str) -> None:
    """Adds a validation to the record; its model is selected unless an earlier one was better."""
    record.validations.append(summary | {"step": step})
    score = selection.score(rule, summary)
    if score <= record.selected_score:
        record.selected_step, record.selected_score = step, score


def describe_start(pretrained: str, first_step: int) -> str:
    """What a training starts from, in words.

    Args:
        pretrained: as `config.model.pretrained`.
        first_step: of the checkpoint that it resumes from; 0 without.
    """
    if first_step:
        return f"the checkpoint of step {first_step}"
    if pretrained == "imagenet":
        return "ImageNet weights"
    return f"the weights in {pretrained}" if pretrained else "random weights"


def _describe_loss(means: dict[str, float], log_terms: tuple[str, ...]) -> str:
    terms = ", ".join(f"{name.removesuffix('_loss')} {means[name]:.3f}" for name in log_terms)
    return f"loss {means['loss']:.3f}" + (f" ({terms})" if terms else "")


def _describe_rate(rate: float, batch_size: int, seconds_left: float) -> str:
    if not rate:
        return ""
    return f"  {rate:.2f} steps/s  {rate * batch_size:.1f} images/s  {timing.format_seconds(seconds_left)} left"


def _describe_validation(step: int, summary: dict, scores: Mapping[str, Score], *, is_selected: bool) -> str:
    parts = [f"validation {step}", f"error {summary['classification_error']:.2f} %"]
    parts[-1] += "".join(
        f" ({score.title} {summary[error_name(name)]:.2f} %)"
        for name, score in scores.items()
        if error_name(name) in summary
    )
    parts.append(f"balanced {summary['balanced_error']:.2f} %")
    if summary["num_images_with_mask"]:
        parts += [f"F1+ {summary['f1_foreground']:.1f}", f"F1- {summary['f1_background']:.1f}"]
    if "false_foreground_share" in summary:
        parts.append(f"false foreground {summary['false_foreground_share']:.1f}")
    parts += [f"{score.title} {summary[name]:.3f}" for name, score in scores.items() if name in summary]
    return "  ".join(parts + ["selected"] * is_selected)
