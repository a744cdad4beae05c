"""Predictions for a whole split: each image at its own resolution, as published."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from minmax_jax.base.errors import UserError
from minmax_jax.data import dataset, padding
from minmax_jax.method import Prediction, RefineFn, Score
from minmax_jax.ops import canvas
from minmax_jax.ops.resize import resize_mask

if TYPE_CHECKING:
    from minmax_jax.data import pipeline


class NotFiniteError(UserError, ArithmeticError):
    """A model predicts what is no number; the message names the first image."""


PredictFn = Callable[[canvas.Images], Prediction]


@dataclasses.dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one image of a split.

    Attributes:
        index: of the image in the split.
        probabilities: [C] of the classes; None of heat maps that tell no class.
        mask: [H, W] float32 soft foreground mask at the image's own resolution.
        scores: the method's further numbers by name.

    Example:
        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> prediction = evaluation.ImagePrediction(0, np.array([0.2, 0.8]), np.zeros((32, 32), np.float32), scores={})
        >>> prediction.predicted
        1
    """

    index: int
    probabilities: np.ndarray | None
    mask: np.ndarray
    scores: dict[str, float]
    _resized: dict[tuple[int, int], np.ndarray] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def mask_at(self, size: tuple[int, int]) -> np.ndarray:
        """The mask at another size, as of `resize.resize_mask`: computed once for all metrics, which only read it."""
        if size not in self._resized:
            self._resized[size] = resize_mask(self.mask, size)
        return self._resized[size]

    @property
    def predicted(self) -> int:
        """The most probable class."""
        return int(np.argmax(self.probabilities))


def known_scores(
    prediction: ImagePrediction, scores: Mapping[str, Score], *, background_classes: Sequence[int] = ()
) -> dict[str, float | None]:
    """The numbers that a method declares, of one image: all but classes, and None what has no meaning for it.

    Args:
        prediction: for the image.
        scores: of the method.
        background_classes: those without a region.
    """
    is_empty = prediction.predicted in background_classes
    return {
        name: None if score.needs_region and is_empty else prediction.scores[name]
        for name, score in scores.items()
        if score.kind != "class" and name in prediction.scores
    }


def predict_split(
    predict_fn: PredictFn,
    split: dataset.Split,
    *,
    batch_size: int,
    refine_fn: RefineFn | None = None,
    shapes: np.ndarray | None = None,
) -> Iterator[ImagePrediction]:
    """Predicts class and mask of every image, in batches of images with one padded shape or canvas.

    Args:
        predict_fn: [B, H, W, 3] uint8 images, or a `Canvas`, to a Prediction; compiled once per shape.
        split: the images.
        batch_size: B.
        refine_fn: post-processing, if given: ([H, W] mask, [H, W, 3] image) -> [H, W] mask. Probabilities and scores
            remain those of the mask before.
        shapes: of canvases that images of several sizes share, as of `canvases.choose`, where `predict_fn` reads them;
            None: each padded shape by itself.

    Raises:
        NotFiniteError: if probabilities, a mask or a score of the model is not finite.

    Example:
        >>> import numpy as np
        >>> from minmax_jax import evaluation, method
        >>> from minmax_jax.data import synthetic
        >>> def predict(images):
        ...     return method.Prediction(np.tile([0.1, 0.9], (len(images), 1)), images[..., :1] / 255, scores={})
        >>> split = synthetic.load("test", 3, config=synthetic.SyntheticConfig())
        >>> found = evaluation.predict_split(predict, split, batch_size=2)
        >>> [(prediction.index, prediction.predicted, prediction.mask.shape) for prediction in found]
        [(0, 1, (64, 64)), (1, 1, (64, 64)), (2, 1, (64, 64))]
    """
    for batch, prediction in predict_batches(predict_fn, split, batch_size=batch_size, shapes=shapes):
        yield from images_of(batch, prediction, split, refine_fn=refine_fn)


def predict_batches(
    predict_fn: Callable[[canvas.Images], Any],
    split: dataset.Split,
    *,
    batch_size: int,
    shapes: np.ndarray | None = None,
) -> Iterator[tuple["pipeline.EvaluationBatch", Any]]:
    """Batches of images with one padded shape or canvas, each with what is predicted for it, in NumPy arrays.

    Args:
        predict_fn: [B, H, W, 3] uint8 images, or a `Canvas`, to a Prediction, or to several in a tuple; compiled once
            per shape.
        split: the images.
        batch_size: B.
        shapes: as in `predict_split`.
    """
    from minmax_jax.data import pipeline  # Here, because grain slows down the import of the library.

    batches = pipeline.evaluation_batches(split, batch_size=batch_size, shapes=shapes)
    for batch, predicted in _predict_ahead(predict_fn, batches):
        yield batch, jax.tree.map(np.asarray, predicted)


def images_of(
    batch: "pipeline.EvaluationBatch",
    prediction: Prediction,
    split: dataset.Split,
    *,
    refine_fn: RefineFn | None = None,
) -> Iterator[ImagePrediction]:
    """The predictions of single images, of a batch.

    Args:
        batch: as of `predict_batches`.
        prediction: for it, in NumPy arrays; its probabilities may be None.
        split: the images.
        refine_fn: as in `predict_split`.

    Raises:
        NotFiniteError: if probabilities, a mask or a score is not finite.
    """
    for row, index in enumerate(batch.indices):
        _check_finite(prediction, row, split.names[index])
        size = tuple(split.sizes[index])
        mask = padding.crop_back(prediction.masks[row, :, :, 0], size)
        if refine_fn is not None:
            mask = refine_fn(mask, padding.crop_back(batch.images[row], size))
        yield ImagePrediction(
            index=int(index),
            probabilities=None if prediction.probabilities is None else prediction.probabilities[row],
            mask=mask,
            scores={name: values[row].item() for name, values in prediction.scores.items()},
        )


def _check_finite(prediction: Prediction, row: int, name: str) -> None:
    numbers = {"probabilities": prediction.probabilities, "mask": prediction.masks, **prediction.scores}
    broken = [what for what, values in numbers.items() if values is not None and not np.isfinite(values[row]).all()]
    if broken:
        raise NotFiniteError(f"the model's {', '.join(broken)} for image {name!r} are not finite.")


def _predict_ahead(predict_fn: Callable[[np.ndarray], Any], batches: Iterator) -> Iterator:
    """Yields (batch, what is predicted) once the next was dispatched: JAX computes while the host compares masks."""
    earlier = None
    for batch in batches:
        later = batch, predict_fn(batch.inputs)
        if earlier is not None:
            yield earlier
        earlier = later
    if earlier is not None:
        yield earlier
