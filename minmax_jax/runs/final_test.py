"""A trained model on a whole split: the numbers and the pictures."""

import logging
import pathlib
from typing import Any

import ml_collections
import numpy as np

from minmax_jax import state as state_lib
from minmax_jax.data import dataset
from minmax_jax.distributed import pmap
from minmax_jax.evaluation import evaluate
from minmax_jax.report import curves, panels
from minmax_jax.runs import build, checkpoints, results
from minmax_jax.runs import workdir as workdir_lib

logger = logging.getLogger(__name__)


def evaluate_split(
    config: ml_collections.ConfigDict,
    split: dataset.Split,
    localize,
    state: state_lib.TrainState,
    *,
    refine_fn: evaluate.RefineFn | None = None,
) -> dict[str, Any]:
    """Summary of a split, whose images the hosts share.

    Args:
        config: of the run.
        split: images, labels and masks.
        localize: (state, images) -> Localization.
        state: of the model.
        refine_fn: of the masks, if they are to be refined.
    """
    state = state_lib.for_inference(state)
    share = dataset.subset(split, pmap.share_of_host(len(split)))
    image_results = evaluate.evaluate(
        lambda images: localize(state, images),
        share,
        batch_size=config.evaluation.batch_size,
        threshold=config.evaluation.threshold,
        refine_fn=refine_fn,
    )
    return evaluate.summarize(pmap.gather_from_hosts(image_results), empty=config.evaluation.empty)


def test_selected(
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    state: state_lib.TrainState,
    parts: build.Parts,
    *,
    wall_seconds: float,
) -> dict[str, Any]:
    """Tests the selected model, and writes `results.json` and `pictures/`.

    Args:
        config: of the run.
        folder: of the run.
        state: of the selected model.
        parts: of the run.
        wall_seconds: that training took.

    Returns:
        What `results.json` holds.
    """
    found = _collect(config, state, parts, "test", wall_seconds=wall_seconds)
    if pmap.is_main_host():
        _draw_pictures(config, folder, state, parts)
        workdir_lib.write_json(folder / "results.json", found)
    return found


def _collect(config, state, parts, split, *, wall_seconds) -> dict[str, Any]:
    logger.info("Evaluating the model of step %d on the %s split.", state.step, split)
    return results.collect(
        split,
        evaluate_split(config, parts.splits[split], parts.localize, state, refine_fn=parts.refine),
        config,
        train_labels=parts.splits["train"].labels,
        step=int(state.step),
        state_digest=checkpoints.model_digest(state),
        wall_seconds=wall_seconds,
    )


def _draw_pictures(config, folder, state, parts) -> None:
    """Panels of test images, evenly spread over the split, and the curves of the run."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    curves.draw_curves(pictures / "curves.png", folder / "metrics.jsonl", selected_step=int(state.step))
    split = parts.splits["test"]
    count = min(config.evaluation.num_pictures, len(split))
    some = dataset.subset(split, np.linspace(0, len(split) - 1, count).round().astype(int))
    state = state_lib.for_inference(state)
    for found in evaluate.localize_split(
        lambda images: parts.localize(state, images),
        some,
        batch_size=config.evaluation.batch_size,
        refine_fn=parts.refine,
    ):
        path = pictures / f"{some.names[found.index]}.png"
        panels.draw_panel(path, some, found, threshold=config.evaluation.threshold)


def evaluate_workdir(
    workdir: str | pathlib.Path, split: str, *, crf: bool | None = None, flips: bool | None = None
) -> dict[str, Any]:
    """Evaluates the selected model of a run on one of its splits; changes nothing in the folder.

    Args:
        workdir: folder of the run.
        split: "train", "validation" or "test".
        crf: whether a CRF refines the masks, with the parameters of the configuration; None: as configured.
        flips: whether what is found is a mean over the flips that training used; None: as configured.

    Returns:
        As in `results.json`, under the name of the split.

    Raises:
        ValueError: if there is no such run or split.
        CheckpointError: if the checkpoint is damaged.
    """
    folder = pathlib.Path(workdir).absolute()
    config = workdir_lib.read_config(folder)
    if crf is not None:
        config.evaluation.crf.enabled = crf
    if flips is not None:
        config.evaluation.flips = flips
    parts = build.create_parts(config)
    if split not in parts.splits:
        raise ValueError(f"--split={split!r} must be one of {tuple(parts.splits)}.")
    saved = checkpoints.Checkpoints(folder / "checkpoints")
    newest = saved.restore_newest(parts.state)
    if newest is None or not newest[1].selected_step:
        raise ValueError(f"--workdir={str(workdir)!r} holds no validated model yet.")
    state, _ = saved.restore(newest[1].selected_step, parts.state)
    return _collect(config, state, parts, split, wall_seconds=newest[1].seconds)
