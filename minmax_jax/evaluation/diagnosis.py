"""The swap test: does it matter to the classifier which region it reads? No true mask is needed.

The classifier reads each image through its own mask, through that of another image, through its own mask moved, and
through a random one with the same values. Where the class is as probable through any of them, the mask carries no
evidence for it: the classifier recognises the image by what every mask lets through.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minmax_jax.data import dataset, padding
from minmax_jax.evaluation import baselines
from minmax_jax.evaluation.image_predictions import PredictFn, predict_batches
from minmax_jax.method import RefineFn
from minmax_jax.ops import canvas
from minmax_jax.ops.resize import resize_mask

if TYPE_CHECKING:
    from minmax_jax.data import pipeline

KINDS = ("own", "other", "moved", "random")
# A mask carries evidence if the class loses at least this much probability through each of the others, and more than
# two standard errors of that.
MIN_LOSS = 0.05
_MAX_IMAGES = 256
ClassifyFn = Callable[[canvas.Images, np.ndarray], Any]


def choose(num_images: int) -> np.ndarray:
    """Indices of the images that are read, at most 256, evenly spaced."""
    return np.linspace(0, num_images - 1, min(_MAX_IMAGES, num_images)).round().astype(int)


def score(
    predict_fn: PredictFn,
    classify_fn: ClassifyFn,
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
    split = dataset.subset(split, choose(len(split)))
    swap = SwapTest(classify_fn, batch_size=batch_size, refine_fn=refine_fn, seed=seed)
    for batch, prediction in predict_batches(predict_fn, split, batch_size=batch_size, shapes=shapes):
        for row, index in enumerate(batch.indices):
            swap.add(batch, row, prediction.masks[row], label=split.labels[index])
    return swap.finish()


class SwapTest:
    """As `score`, of images whose masks are predicted elsewhere: images come one by one, those of one shape in a row.

    The images of one batch at most are kept.
    """

    def __init__(
        self, classify_fn: ClassifyFn, *, batch_size: int, refine_fn: RefineFn | None = None, seed: int = 0
    ) -> None:
        """Starts without an image; the arguments are those of `score`."""
        self._classify_fn, self._batch_size, self._refine_fn = classify_fn, batch_size, refine_fn
        self._rng, self._before, self._rows = np.random.default_rng(seed), None, []
        # Batches of (image, size, own mask, label): the one that is filled, and before it a first one of one image,
        # whose other mask is then of the batch that follows.
        self._batches: list[list[tuple[np.ndarray, tuple[int, int], np.ndarray, int]]] = [[]]
        self._is_on_canvas = False
        self._computing = None  # the batch that the classifier reads while the host prepares the next

    def add(self, batch: "pipeline.EvaluationBatch", row: int, mask: np.ndarray, *, label: int) -> None:
        """Adds an image.

        Args:
            batch: that holds it.
            row: its number in the batch.
            mask: [H, W, 1] of it, not yet post-processed.
            label: its class.
        """
        image, (height, width) = batch.images[row], batch.shapes[row]
        self._is_on_canvas = batch.sizes is not None
        if self._batches[-1] and self._batches[-1][0][0].shape != image.shape:
            self._end_batch()
        own = mask[:height, :width, 0]
        if self._refine_fn is not None:
            own = self._refine_fn(own, image[:height, :width])
        self._batches[-1].append((image, (height, width), own, int(label)))
        if len(self._batches[-1]) == self._batch_size:
            self._end_batch()

    def finish(self) -> list[dict[str, Any]]:
        """The rows of all images, in the order in which they came; none of one image alone."""
        if self._batches[-1]:
            self._end_batch()
        self._collect()
        return self._rows

    def _end_batch(self) -> None:
        if self._before is None:
            if len(self._batches) == 1 and len(self._batches[0]) == 1:
                self._batches.append([])
                return
            self._before = self._batches[-1][-1][2]
        for batch in self._batches:
            self._read(batch)
        self._batches = [[]]

    def _read(self, batch: list[tuple[np.ndarray, tuple[int, int], np.ndarray, int]]) -> None:
        """Lets the classifier read a batch, completed by copies of its first image, through masks of each kind."""
        images, sizes, own, labels = zip(*batch, *batch[:1] * (self._batch_size - len(batch)))
        of_kinds = {
            "own": own,
            "other": [resize_mask(other, mask.shape) for other, mask in zip([self._before, *own], own)],
            "moved": [np.roll(mask, (mask.shape[0] // 2, mask.shape[1] // 2), axis=(0, 1)) for mask in own],
            "random": [_shuffle(mask, self._rng) for mask in own],
        }
        self._before = own[len(batch) - 1]
        inputs = canvas.join(np.stack(images), np.array(sizes, np.int32) if self._is_on_canvas else None)
        self._collect()
        found = {
            kind: self._classify_fn(inputs, _stack(of_kinds[kind], images[0].shape[:2], own[0].dtype)) for kind in KINDS
        }
        self._computing = found, labels[: len(batch)]

    def _collect(self) -> None:
        """Waits for the classifier, and keeps the rows of its batch."""
        if self._computing is None:
            return
        (found, labels), self._computing = self._computing, None
        found = {kind: np.asarray(probabilities) for kind, probabilities in found.items()}
        predicted = found["own"].argmax(-1)
        self._rows += [
            {kind: _describe(found[kind][row], predicted[row], label) for kind in KINDS}
            for row, label in enumerate(labels)
        ]


def _stack(masks: Sequence[np.ndarray], shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """[B, H, W, 1] masks for the images of a batch."""
    return np.stack([padding.place(mask.astype(dtype), shape) for mask in masks])[..., None]


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
