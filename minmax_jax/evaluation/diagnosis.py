"""The swap test: does it matter to the classifier which region it reads? No true mask is needed.

The classifier reads each image through its own mask, through that of another image, through its own mask moved, and
through a random one with the same values. Where the class is as probable through any of them, the mask carries no
evidence for it: the classifier recognises the image by what every mask lets through.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minmax_jax.data import dataset, padding
from minmax_jax.evaluation import baselines
from minmax_jax.evaluation.image_predictions import PredictFn
from minmax_jax.method import RefineFn
from minmax_jax.ops import canvas
from minmax_jax.ops.resize import resize_mask

KINDS = ("own", "other", "moved", "random")
# A mask carries evidence if the class loses at least this much probability through each of the others, and more than
# two standard errors of that.
MIN_LOSS = 0.05
_MAX_IMAGES = 256


def score(
    predict_fn: PredictFn,
    classify_fn: Callable[[canvas.Images, np.ndarray], np.ndarray],
    split: dataset.Split,
    *,
    batch_size: int,
    refine_fn: RefineFn | None = None,
    shapes: np.ndarray | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The probabilities that the classifier gives through each kind of mask.

    Args:
        predict_fn: as in `evaluate`.
        classify_fn: (images [B, H, W, 3] uint8 or a `Canvas`, masks [B, H, W, 1]) -> [B, C] probabilities.
        split: of which at most 256 images are taken, evenly spaced.
        batch_size: images of one shape that are read together.
        refine_fn: post-processing of the masks, as in `predict_split`.
        shapes: of canvases, as in `predict_split`.
        seed: of the random masks.

    Returns:
        A row per image: for each kind the "probability" of the class predicted through the own mask, the "entropy" in
        nats, and whether the class is the true one. No row of a split of one image, which has no other's mask.
    """
    from minmax_jax.data import pipeline  # Here, because grain slows down the import of the library.

    count = min(_MAX_IMAGES, len(split))
    split = dataset.subset(split, np.linspace(0, len(split) - 1, count).round().astype(int))
    if count < 2:
        return []
    rng, rows, before = np.random.default_rng(seed), [], None
    for batch in pipeline.evaluation_batches(split, batch_size=batch_size, shapes=shapes):
        own, used = _predict_masks(predict_fn, batch, refine_fn), len(batch.indices)
        if before is None:  # nothing was predicted before the first batch
            before = own[used - 1] if used > 1 else _another_mask(predict_fn, split, batch, refine_fn, shapes)
        masks = {
            "own": own,
            "other": [resize_mask(other, mask.shape) for other, mask in zip([before, *own], own)],
            "moved": [np.roll(mask, (mask.shape[0] // 2, mask.shape[1] // 2), axis=(0, 1)) for mask in own],
            "random": [_shuffle(mask, rng) for mask in own],
        }
        before = own[used - 1]
        found = {kind: np.asarray(classify_fn(batch.inputs, _stack(masks[kind], batch)))[:used] for kind in KINDS}
        predicted, labels = found["own"].argmax(-1), split.labels[batch.indices]
        rows += [
            {kind: _describe(found[kind][row], predicted[row], labels[row]) for kind in KINDS} for row in range(used)
        ]
    return rows


def _predict_masks(predict_fn: PredictFn, batch, refine_fn: RefineFn | None) -> list[np.ndarray]:
    """The final masks [H, W] of the B padded images of a batch."""
    masks = np.asarray(predict_fn(batch.inputs).masks)[..., 0]
    cut = [
        (mask[:height, :width], image[:height, :width])
        for mask, image, (height, width) in zip(masks, batch.images, batch.shapes)
    ]
    return [mask if refine_fn is None else refine_fn(mask, image) for mask, image in cut]


def _stack(masks: list[np.ndarray], batch) -> np.ndarray:
    """[B, H, W, 1] masks for the images of a batch."""
    shape, dtype = batch.images.shape[1:3], masks[0].dtype
    return np.stack([padding.place(mask.astype(dtype), shape) for mask in masks])[..., None]


def _another_mask(
    predict_fn: PredictFn, split: dataset.Split, batch, refine_fn: RefineFn | None, shapes: np.ndarray | None
) -> np.ndarray:
    """The mask [H, W] of the split's last image, or of its first where the batch consists of the last."""
    from minmax_jax.data import pipeline  # as in `score`

    index = len(split) - 1 if batch.indices[0] < len(split) - 1 else 0
    other_split = dataset.subset(split, [index])
    (other,) = pipeline.evaluation_batches(other_split, batch_size=len(batch.images), shapes=shapes)
    return _predict_masks(predict_fn, other, refine_fn)[0]


def _shuffle(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The values of a mask [H, W] in the order of a smooth random pattern."""
    return baselines.rearrange(mask, baselines.random_pattern(mask.shape, rng))


def _describe(probabilities: np.ndarray, predicted: int, label: int) -> dict[str, float]:
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return {
        "probability": float(probabilities[predicted]),
        "entropy": float(-np.sum(probabilities * logarithms)),
        "correct": bool(probabilities.argmax() == label),
    }


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means for each kind of mask, and whether masks carry evidence.

    Returns:
        For each kind "probability" (of the class predicted through the own mask), "entropy" (nats) and "error"
        (percent); for all but the own one also "loss" of that probability and its "standard_error". "has_evidence"
        is whether each loss is at least `MIN_LOSS` and more than two standard errors.
    """
    summary, has_evidence = {"num_images": len(rows)}, True
    own = np.array([row["own"]["probability"] for row in rows])
    for kind in KINDS:
        probability, entropy, correct = (
            np.array([row[kind][name] for row in rows], float) for name in ("probability", "entropy", "correct")
        )
        summary[kind] = {
            "probability": float(probability.mean()),
            "entropy": float(entropy.mean()),
            "error": float(100 * (1 - correct.mean())),
        }
        if kind != "own":
            losses = own - probability
            error = float(losses.std(ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else float("inf")
            loss = float(losses.mean())
            summary[kind] |= {"loss": loss, "standard_error": error if np.isfinite(error) else None}
            has_evidence &= loss >= MIN_LOSS and loss > 2 * error
    return summary | {"has_evidence": bool(has_evidence)}
