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
from minmax_jax.evaluation import class_table, curves, diagnosis, metric_table
from minmax_jax.evaluation.evaluators import Evaluator, Row
from minmax_jax.evaluation.image_predictions import PredictFn
from minmax_jax.evaluation.metrics import pixel_curve, thresholds
from minmax_jax.method import Prediction
from minmax_jax.runs import scoring, second_stage
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

    The first stage sees each image once: mirror images and sizes are for tests.

    Args:
        run: the run.
        split: images and annotations.
        state: of the model.
    """
    variables = state_lib.inference_variables(state)
    rows = _evaluate(run, split, lambda images: run.predict_once(variables, images), run.evaluators)
    return rows, evaluation.summarize(rows, run.evaluators)


def _evaluate(
    run: Run, split: dataset.Split, predict_fn: PredictFn, metrics_of: Sequence[Evaluator], **options
) -> list[Row]:
    rows = evaluation.evaluate(
        predict_fn,
        dataset.subset(split, hosts.share_of_host(len(split))),
        metrics_of,
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
        stage = second_stage.restore(folder, run.options.refine, state) or second_stage.train(run, state)
        further = {"edge_weight_used": stage.edge_weight}
        run = second_stage.refine(run, stage)
    if hosts.is_main_host():
        # The model is saved before the test, so that a run that is stopped there does not train its decoder twice. On a
        # full disk the earlier model remains, with its results; from here on they are of another model.
        workdir_lib.write_json(folder / "config.json", run.config.to_dict())
        _save_model(run, folder, state, stage)
        (folder / "results.json").unlink(missing_ok=True)
    rows, content = evaluate_model(run, state, "test", wall_seconds=wall_seconds, with_first_stage=stage is not None)
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
    run: Run, state: state_lib.TrainState, split: str, *, wall_seconds: float, with_first_stage: bool = False
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a split, and the content of `results.json` with that split in place of the test split.

    Args:
        run: the run.
        state: of the model.
        split: name of the split.
        wall_seconds: duration of the training.
        with_first_stage: whether the content also has "test_unrefined", the metrics of validations of the first stage's
            masks, for a run with a second stage.
    """
    logger.info("Evaluating the model of step %d on the %s split.", state.step, split)
    rows, first_rows, swap_rows = scoring.score(run, run.splits[split], state, with_first_stage=with_first_stage)
    summary = evaluation.summarize(rows, run.test_evaluators)
    swaps = _diagnose(run.splits[split], rows, swap_rows)
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
    threshold = choose_threshold(run, run.splits["validation"], state) if split == "test" else None
    content["metrics"] = metric_table.describe(
        rows, run.splits[split], run.test_evaluators, validated_threshold=threshold
    )
    content |= class_table.describe(rows, run.splits[split], run.splits["train"].labels)
    if with_first_stage:
        content["test_unrefined"] = strict_json.finite(evaluation.summarize(first_rows, run.evaluators))
    return rows, content | ({"diagnosis": swaps} if swaps else {})


def choose_threshold(run: Run, split: dataset.Split, state: state_lib.TrainState) -> float | None:
    """The best threshold for validation images, if any has a true mask.

    Args:
        run: the run.
        split: the images.
        state: of the model.
    """
    if not dataset.any_mask(split):
        return None
    variables = state_lib.inference_variables(state)

    def predict(images):
        return Prediction(probabilities=None, masks=run.predict_masks(variables, images), scores={})

    return thresholds.best_threshold(_evaluate(run, split, predict, [pixel_curve.EVALUATOR], refine_fn=run.refine_fn))


def _diagnose(split: dataset.Split, rows: Sequence[Row], swap_rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the swap test says of the images that have and show a region; None without rows of it."""
    if not swap_rows:  # no classifier, or only one image: there is no other's mask
        return None
    background, left_out = split.background_labels, {}
    if background:
        predicted = np.array([row["predicted"] for row in rows])
        num_left_out = np.count_nonzero(~split.has_region | np.isin(predicted, background))
        left_out = {"num_left_out": int(num_left_out)}
        logger.info(
            "The swap test leaves out %d images that are, or are predicted to be, of a class without a region.",
            num_left_out,
        )
    summary = diagnosis.summarize(swap_rows) | left_out
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
