"""Evaluates a trained model on a split: results, a row per image, pictures, and the saved model."""

from collections.abc import Sequence
import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from minmax_jax import evaluation
from minmax_jax.base import strict_json
from minmax_jax.data import dataset
from minmax_jax.distributed import hosts
from minmax_jax.evaluation import baselines, class_table, curves, diagnosis, metric_table
from minmax_jax.evaluation.evaluators import Evaluator, Row
from minmax_jax.evaluation.metrics import pixel_curve, thresholds
from minmax_jax.ops import canvas
from minmax_jax.runs import second_stage
from minmax_jax.runs.building import data_splits
from minmax_jax.runs.building.options import RunOptions
from minmax_jax.runs.building.run import Run
from minmax_jax.runs.drawing import pictures
from minmax_jax.runs.folder import digests, model_card, results
from minmax_jax.runs.folder import workdir as workdir_lib
from minmax_jax.training import state as state_lib

logger = logging.getLogger(__name__)
PREDICTIONS = "predictions.jsonl"  # rows of the test split


def evaluate_split(run: Run, split: dataset.Split, state: state_lib.TrainState) -> tuple[list[Row], dict[str, Any]]:
    """The rows and the summary of a split, whose images the hosts share, by the metrics of validations.

    Args:
        run: the run.
        split: images and annotations.
        state: of the model.
    """
    rows = _evaluate(run, split, state, run.evaluators)
    return rows, evaluation.summarize(rows, run.evaluators)


def _evaluate(
    run: Run, split: dataset.Split, state: state_lib.TrainState, evaluators: Sequence[Evaluator], **options
) -> list[Row]:
    variables = state_lib.inference_variables(state)
    rows = evaluation.evaluate(
        lambda images: run.predict(variables, images),
        dataset.subset(split, hosts.share_of_host(len(split))),
        evaluators,
        batch_size=run.options.evaluation.batch_size,
        shapes=run.shapes,
        **options,
    )
    return hosts.gather_from_hosts(rows)


def test_selected(
    run: Run, folder: pathlib.Path, state: state_lib.TrainState, *, wall_seconds: float
) -> dict[str, Any]:
    """Tests the selected model; writes predictions, model, `results.json`, and the pictures.

    With `config.refine.enabled` the second stage comes first, and all of these are of its masks.

    Args:
        run: the run.
        folder: of the run.
        state: of the selected model.
        wall_seconds: duration of the training.

    Returns:
        The content of `results.json`.
    """
    stage, further = None, {}
    if run.options.refine.enabled:
        logger.info("Evaluating the first stage of step %d on the test split.", state.step)
        _, summary = evaluate_split(run, run.splits["test"], state)
        stage = second_stage.restore(folder, run.options.refine, state) or second_stage.train(run, state)
        further = {"test_unrefined": strict_json.finite(summary), "edge_weight_used": stage.edge_weight}
        run = second_stage.refine(run, stage)
    if hosts.is_main_host():
        # The model is saved before the test, so that a run that is stopped there does not train its decoder twice. On a
        # full disk the earlier model remains, with its results; from here on they are of another model.
        workdir_lib.write_json(folder / "config.json", run.config.to_dict())
        _save_model(run, folder, state, stage)
        (folder / "results.json").unlink(missing_ok=True)
    rows, content = evaluate_model(run, state, "test", wall_seconds=wall_seconds)
    content |= further
    if hosts.is_main_host():
        results.write_rows(folder / PREDICTIONS, rows)
        workdir_lib.write_json(folder / "curves.json", curves.describe(rows))
        pictures.draw(run, folder, state, rows)
        # A run that is stopped before is tested again; the page reads it.
        workdir_lib.write_json(folder / "results.json", content)
        pictures.write_report(folder)
    return content


def read_results(folder: pathlib.Path, options: RunOptions, step: int) -> dict[str, Any] | None:
    """The content of `results.json`, or None if there is none, or one of another second stage or selected step.

    Args:
        folder: of the run.
        options: of the run.
        step: the selected step, whose model is tested.
    """
    content = results.read(folder)
    refine = strict_json.plain(dataclasses.asdict(options.refine)) if options.refine.enabled else None
    return content if content and content.get("refine") == refine and content["step"] == step else None


def evaluate_model(
    run: Run, state: state_lib.TrainState, split: str, *, wall_seconds: float
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a split, and the content of `results.json` with that split in place of the test split.

    Args:
        run: the run.
        state: of the model.
        split: name of the split.
        wall_seconds: duration of the training.
    """
    logger.info("Evaluating the model of step %d on the %s split.", state.step, split)
    rows = _evaluate(
        run, run.splits[split], state, run.test_evaluators, refine_fn=run.refine_fn, baselines=baselines.BASELINES
    )
    summary = evaluation.summarize(rows, run.test_evaluators)
    swaps = _diagnose(run, run.splits[split], state, rows)
    content = results.collect(
        split,
        summary,
        run.options,
        method=run.method,
        train_labels=run.splits["train"].labels,
        step=int(state.step),
        state_digest=digests.model_digest(state),
        wall_seconds=wall_seconds,
    )
    threshold = _choose_threshold(run, state) if split == "test" else None
    content["metrics"] = metric_table.describe(
        rows, run.splits[split], run.test_evaluators, validated_threshold=threshold
    )
    content |= class_table.describe(rows, run.splits[split], run.splits["train"].labels)
    return rows, content | ({"diagnosis": swaps} if swaps else {})


def _choose_threshold(run: Run, state: state_lib.TrainState) -> float | None:
    """The best threshold for the validation images, if any has a true mask."""
    split = run.splits["validation"]
    if not dataset.any_mask(split):
        return None
    return thresholds.best_threshold(_evaluate(run, split, state, [pixel_curve.EVALUATOR], refine_fn=run.refine_fn))


def _diagnose(
    run: Run, split: dataset.Split, state: state_lib.TrainState, rows: Sequence[Row]
) -> dict[str, Any] | None:
    """The swap test, where the method has a classifier that reads regions, of the images that have and show one."""
    if run.classify is None:
        return None
    background, left_out = split.background_labels, {}
    if background:
        predicted = np.array([row["predicted"] for row in rows])
        kept = np.flatnonzero(split.has_region & ~np.isin(predicted, background))
        left_out = {"num_left_out": len(split) - len(kept)}
        logger.info(
            "The swap test leaves out %d images that are, or are predicted to be, of a class without a region.",
            left_out["num_left_out"],
        )
        if not len(kept):
            return None
        split = dataset.subset(split, kept)
    variables = state_lib.inference_variables(state)

    def classify(images, masks):
        pixels, sizes = canvas.split(images)
        scaled = pixels.astype(np.float32) / 127.5 - 1
        return run.classify(variables, canvas.join(np.concatenate([scaled, masks.astype(np.float32)], axis=-1), sizes))

    rows = diagnosis.score(
        lambda images: run.predict(variables, images),
        classify,
        dataset.subset(split, hosts.share_of_host(len(split))),
        batch_size=run.options.evaluation.batch_size,
        refine_fn=run.refine_fn,
        shapes=run.shapes,
    )
    rows = hosts.gather_from_hosts(rows)
    if not rows:  # of one image, there is no other's mask
        return None
    summary = diagnosis.summarize(rows) | left_out
    if not summary["has_evidence"]:
        logger.warning("The masks carry no evidence: %s", results.describe_diagnosis(summary))
    return summary


def _save_model(
    run: Run, folder: pathlib.Path, state: state_lib.TrainState, stage: second_stage.SecondStage | None
) -> None:
    variables = state_lib.inference_variables(state)
    card = model_card.describe(
        run.options,
        steps_per_epoch=run.steps_per_epoch,
        class_names=run.splits["train"].class_names,
        background_classes=run.splits["train"].background_classes,
        crop_size=data_splits.crop_size(run.options.data, run.splits["train"]),
        train_labels=run.splits["train"].labels,
        reading=run.splits["train"].reading,
        step=int(variables.pop("step")),
        state_digest=digests.model_digest(state),
        microns_per_pixel=run.splits["train"].microns_per_pixel,
    )
    if stage is not None:
        card["edge_weight_used"] = stage.edge_weight
        variables["decoder"] = stage.decoder
    model_card.save(folder, card, variables)
