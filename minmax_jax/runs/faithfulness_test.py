"""Whether the masks of a finished run show what its model looks at: `faithfulness.json`."""

import pathlib
from typing import Any

import jax
import numpy as np

from minmax_jax.base import options, progress
from minmax_jax.base.paths import local_path
from minmax_jax.data import canvases, dataset, padding
from minmax_jax.evaluation import faithfulness, predict_split, randomization
from minmax_jax.ops import canvas
from minmax_jax.ops.resize import resize_mask
from minmax_jax.runs import finished_runs
from minmax_jax.runs.building.run import Run
from minmax_jax.runs.folder import workdir as workdir_lib
from minmax_jax.training import state as state_lib

FILE = "faithfulness.json"
# What is randomized: the weights that make the mask of features, class maps' or a second stage's, or all.
_LEVELS = {
    "head": lambda path: path.startswith("params/localizer_head/"),
    "decoder": lambda path: path.startswith("decoder/"),
    "all": lambda path: path.startswith(("params/", "decoder/")),
}


def test_workdir(
    workdir: str | pathlib.Path,
    split: str,
    *,
    num_images: int = 16,
    num_steps: int = 20,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Tests the masks that a run stands for on some images of a split, and writes the numbers to its folder.

    Args:
        workdir: folder of the run.
        split: "train", "validation" or "test".
        num_images: evenly spaced over the split; all where it has fewer.
        num_steps: of the curves of insertion and deletion; an image takes about twelve times as many predictions.
        data_dir: folder of the prepared data, if it moved.

    Returns:
        {"split", "num_images", "num_steps", "faithfulness": as of `faithfulness.summarize`, "randomized": {what: as of
        `randomization.summarize`}}; with classes without a region, whose images are not taken, also "num_left_out",
        the images for which one is predicted, and the same of each randomized model, whose correlation is None where
        none is left.

    Raises:
        UserError: as `finished_runs.evaluate_workdir`; for less than one image or step.
    """
    options.check_range("num_images", num_images, 1)
    options.check_range("num_steps", num_steps, 1)
    folder = local_path("workdir", workdir).absolute()
    config = finished_runs.read_config(folder)
    if data_dir is not None:
        config.data.dir = data_dir
    model = finished_runs.open_model(folder, config, split)
    run, images, variables = model.run, model.run.splits[split], state_lib.inference_variables(model.state)
    variables |= {} if model.decoder is None else {"decoder": model.decoder}
    images, left_out = dataset.subset(images, np.flatnonzero(images.has_region)), {}
    if not len(images):
        raise options.OptionError(f"split={split!r} has no image of a class with a region.")
    count = min(num_images, len(images))
    images = dataset.subset(images, np.linspace(0, len(images) - 1, count).round().astype(int))
    masks = _predict_masks(run, variables, images)
    if images.background_labels:  # an empty mask is that of a predicted class without a region, and shows nothing
        shown = [index for index, mask in enumerate(masks) if mask.any()]
        left_out = {"num_left_out": count - len(shown)}
        images, masks, count = dataset.subset(images, shown), [masks[index] for index in shown], len(shown)
        if not shown:
            raise options.OptionError(f"split={split!r}: no image of a class with a region has a mask to test.")
    # No more than a curve needs; evaluations of small images have larger batches.
    batch_size = min(run.options.evaluation.batch_size, _round_up(num_steps + 1, jax.local_device_count()))
    rows = [
        faithfulness.score(
            lambda changed: _probabilities(run, variables, changed, batch_size),
            images.read_image(index),
            masks[index],
            true_mask=_true_mask(images, index),
            num_steps=num_steps,
        )
        for index in progress.track(range(count), "Faithfulness")
    ]
    content = {
        "split": split,
        "num_images": count,
        **left_out,
        "num_steps": num_steps,
        "faithfulness": faithfulness.summarize(rows),
        "randomized": _randomize(run, variables, images, masks),
    }
    workdir_lib.write_json(folder / FILE, content)
    return content


def _predict_masks(run: Run, variables: dict[str, Any], images: dataset.Split) -> list[np.ndarray]:
    """The mask [H, W] of each image."""
    masks: dict[int, np.ndarray] = {}
    batch_size = run.options.evaluation.batch_size
    for prediction in predict_split(
        lambda batch: run.predict(variables, batch),
        images,
        batch_size=batch_size,
        refine_fn=run.refine_fn,
        shapes=run.shapes,
    ):
        masks[prediction.index] = prediction.mask
    return [masks[index] for index in range(len(images))]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _probabilities(run: Run, variables: dict[str, Any], images: np.ndarray, batch_size: int) -> np.ndarray:
    """[B, C] of the whole model, which finds a region in the changed images [B, H, W, 3] and reads it."""
    padded = [padding.pad(image) for image in images]
    size = padded[0].shape[:2]
    (shape,) = canvases.assign(np.array([size]), run.shapes).tolist()
    placed = np.stack([padding.place(image, shape) for image in padded])
    # Repeated images fill the last batch: another number of images would compile the networks again.
    filled = np.concatenate([placed, np.repeat(placed[-1:], -len(placed) % batch_size, axis=0)])
    sizes = None if run.shapes is None else np.tile(np.array(size, np.int32), (batch_size, 1))
    found = [
        np.asarray(run.predict(variables, canvas.join(filled[start : start + batch_size], sizes)).probabilities)
        for start in range(0, len(filled), batch_size)
    ]
    return np.concatenate(found)[: len(images)]


def _true_mask(images: dataset.Split, index: int) -> np.ndarray | None:
    mask = images.read_mask(index)
    return None if mask is None else resize_mask(mask.astype(np.float32), tuple(images.sizes[index])) >= 0.5


def _randomize(run: Run, variables: dict[str, Any], images: dataset.Split, masks: list[np.ndarray]) -> dict[str, Any]:
    # A decoder's masks do not depend on the class maps.
    levels = "decoder" if "decoder" in variables else "head", "all"
    return {
        level: _compare_masks(
            masks, _predict_masks(run, randomization.randomize(variables, _LEVELS[level]), images), images
        )
        for level in levels
    }


def _compare_masks(masks: list[np.ndarray], others: list[np.ndarray], images: dataset.Split) -> dict[str, float | None]:
    """`randomization.summarize`, without images where the other mask is empty: that of a class without a region.

    It is made from no class map, and its correlation of 0 would not show what the masks depend on.
    """
    if not images.background_labels:
        return randomization.summarize(masks, others)
    kept = [(mask, other) for mask, other in zip(masks, others) if other.any()]
    left_out = {"num_left_out": len(masks) - len(kept)}
    if not kept:
        return {"rank_correlation": None, "standard_error": None, **left_out}
    return randomization.summarize(*zip(*kept)) | left_out
