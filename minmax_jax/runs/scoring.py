"""One pass over the images of a test: metrics of both stages' masks, and the swap test, from the same predictions."""

from typing import Any

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.distributed import hosts
from minmax_jax.evaluation import baselines, diagnosis, evaluators, image_predictions
from minmax_jax.evaluation.evaluators import Row
from minmax_jax.ops import canvas
from minmax_jax.runs.building.run import Run
from minmax_jax.training import state as state_lib


def score(
    run: Run, split: dataset.Split, state: state_lib.TrainState, *, with_first_stage: bool
) -> tuple[list[Row], list[Row], list[dict[str, Any]]]:
    """Reads and predicts each image of a split once, for all that is measured; the masks of one batch are kept.

    Args:
        run: the run.
        split: images and annotations, which the hosts share.
        state: of the model.
        with_first_stage: whether the masks of the first stage are measured as well, for a run with a second stage.

    Returns:
        Rows of the run's masks by its metrics of tests, a row per image; rows of the first stage's masks by its metrics
        of validations, or none; and rows of the swap test, of at most 256 images that have and show a region on each
        host, or none.
    """
    share = dataset.subset(split, hosts.share_of_host(len(split)))
    variables, swap = state_lib.inference_variables(state), _create_swap_test(run, state)
    swapped = _choose_swapped(share)

    def predict(images):
        if with_first_stage:
            return run.predict_stages(variables, images)
        return run.predict(variables, images), None

    rows, first_rows = [None] * len(share), [None] * len(share)
    batches = image_predictions.predict_batches(
        predict, share, batch_size=run.options.evaluation.batch_size, shapes=run.shapes
    )
    for batch, (final, first) in batches:
        found = list(image_predictions.images_of(batch, final, share, refine_fn=run.refine_fn))
        of_first = found if first is None else image_predictions.images_of(batch, first, share)
        for place, (prediction, first_prediction) in enumerate(zip(found, of_first)):
            index = prediction.index
            truth, name = evaluators.read_truth(share, index), share.names[index]
            rows[index] = evaluators.score_image(
                prediction, truth, run.test_evaluators, name=name, baselines=baselines.BASELINES
            )
            if with_first_stage:
                first_rows[index] = evaluators.score_image(first_prediction, truth, run.evaluators, name=name)
            if swap and index in swapped and prediction.predicted not in share.background_labels:
                swap.add(batch, place, final.masks[place], label=truth.label)
    of_hosts = rows, first_rows if with_first_stage else [], swap.finish() if swap else []
    return tuple(map(hosts.gather_from_hosts, of_hosts))


def _create_swap_test(run: Run, state: state_lib.TrainState) -> diagnosis.SwapTest | None:
    """The swap test of `diagnosis`, where the method has a classifier that reads regions."""
    if run.classify is None:
        return None
    variables = state_lib.inference_variables(state)

    def classify(images, masks):
        pixels, sizes = canvas.split(images)
        scaled = pixels.astype(np.float32) / 127.5 - 1
        seen = np.concatenate([scaled, masks.astype(np.float32)], axis=-1)
        return run.classify(variables, canvas.join(seen, sizes))

    return diagnosis.SwapTest(classify, batch_size=run.options.evaluation.batch_size, refine_fn=run.refine_fn)


def _choose_swapped(split: dataset.Split) -> set[int]:
    """Indices of the images of the swap test: those that have a region, and of many of them some."""
    with_region = np.flatnonzero(split.has_region)
    return set(with_region[diagnosis.choose(len(with_region))].tolist())
