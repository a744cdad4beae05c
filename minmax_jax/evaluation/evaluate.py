"""Evaluation as published: each image at its own resolution, its mask compared at the true mask's."""

from collections.abc import Callable, Iterator
import dataclasses

import numpy as np

from minmax_jax import inference
from minmax_jax.data import dataset, pipeline
from minmax_jax.evaluation.metrics import dice
from minmax_jax.ops import resize


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in one image of a split.

    Attributes:
        index: its place in the split.
        label: the classifier's class.
        localizer_label: the localizer's class.
        probabilities: [C] of the classes.
        mask: [H, W] float32 foreground mask at the image's own resolution.
        foreground_entropy: in nats.
        background_entropy: in nats.
    """

    index: int
    label: int
    localizer_label: int
    probabilities: np.ndarray
    mask: np.ndarray
    foreground_entropy: float
    background_entropy: float


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """The metrics of one image; shares, not percent, NaN where a Dice is 0 / 0 or the image has no true mask."""

    name: str
    true_label: int
    label: int
    localizer_label: int
    has_mask: bool
    f1_foreground: float
    f1_background: float
    all_ones_f1_foreground: float
    all_ones_f1_background: float
    entropy_foreground: float
    entropy_background: float


LocalizeFn = Callable[[np.ndarray], inference.Localization]
RefineFn = Callable[[np.ndarray, np.ndarray], np.ndarray]


def localize_split(
    localize_fn: LocalizeFn, split: dataset.Split, *, batch_size: int, refine_fn: RefineFn | None = None
) -> Iterator[Found]:
    """Finds class and region in every image of a split, those of one shape together.

    Args:
        localize_fn: [B, H, W, 3] uint8 images to a Localization; compiled once for each shape.
        split: the images.
        batch_size: B.
        refine_fn: if given, makes of each mask [H, W] and its image [H, W, 3] a better mask; class and entropies
            stay those of the mask before.
    """
    batches = pipeline.evaluation_batches(split, batch_size=batch_size)
    for batch, localization in _localize_ahead(localize_fn, batches):
        arrays = {
            field.name: np.asarray(getattr(localization, field.name)) for field in dataclasses.fields(localization)
        }
        for row, index in enumerate(batch.indices):
            size = tuple(split.sizes[index])
            mask = pipeline.crop_back(arrays["masks"][row, :, :, 0], size)
            if refine_fn is not None:
                mask = refine_fn(mask, pipeline.crop_back(batch.images[row], size))
            yield Found(
                index=int(index),
                label=int(arrays["classes"][row]),
                localizer_label=int(arrays["localizer_classes"][row]),
                probabilities=arrays["probabilities"][row],
                mask=mask,
                foreground_entropy=float(arrays["foreground_entropy"][row]),
                background_entropy=float(arrays["background_entropy"][row]),
            )


def _localize_ahead(
    localize_fn: LocalizeFn, batches: Iterator[pipeline.EvaluationBatch]
) -> Iterator[tuple[pipeline.EvaluationBatch, inference.Localization]]:
    """Each batch with what is found in it, when the next one is under way: JAX computes while the host compares."""
    earlier = None
    for batch in batches:
        later = batch, localize_fn(batch.images)
        if earlier is not None:
            yield earlier
        earlier = later
    if earlier is not None:
        yield earlier


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] soft mask to another size, float64; bilinear, corners aligned."""
    if mask.shape == tuple(size):  # as in most datasets: the products would take longer than all other metrics
        return mask.astype(float)
    rows, columns = (resize.interpolation_matrix(*sides) for sides in zip(mask.shape, size))
    return rows @ mask @ columns.T


def evaluate(
    localize_fn: LocalizeFn,
    split: dataset.Split,
    *,
    batch_size: int,
    threshold: float = 0.5,
    refine_fn: RefineFn | None = None,
) -> list[ImageResult]:
    """Compares what is found in a split with its labels and masks, image by image, in the split's order.

    Args:
        localize_fn: as in `localize_split`.
        split: images, labels and masks.
        batch_size: images of one shape that are computed together.
        threshold: a pixel is foreground where the mask is at least this.
        refine_fn: as in `localize_split`.
    """
    results = []
    for found in localize_split(localize_fn, split, batch_size=batch_size, refine_fn=refine_fn):
        true_mask = split.read_mask(found.index)
        result = ImageResult(
            name=split.names[found.index],
            true_label=int(split.labels[found.index]),
            label=found.label,
            localizer_label=found.localizer_label,
            has_mask=true_mask is not None,
            **_compare(found.mask, true_mask, threshold=threshold),
            entropy_foreground=found.foreground_entropy,
            entropy_background=found.background_entropy,
        )
        results.append((found.index, result))
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]


def _compare(mask: np.ndarray, true_mask: np.ndarray | None, *, threshold: float) -> dict[str, float]:
    """The Dice of foreground and background, of a found mask and of one that is foreground everywhere."""
    if true_mask is None:  # Nothing against nothing: NaN.
        predicted = true_mask = np.zeros((0, 0), bool)
    else:
        predicted = resize_mask(mask, true_mask.shape) >= threshold
    everything = np.ones_like(true_mask)
    return {
        "f1_foreground": dice.dice(predicted, true_mask),
        "f1_background": dice.dice(~predicted, ~true_mask),
        "all_ones_f1_foreground": dice.dice(everything, true_mask),
        "all_ones_f1_background": dice.dice(~everything, ~true_mask),
    }


def summarize(results: list[ImageResult], *, empty: str = "skip") -> dict:
    """The numbers of a split: errors and F1 in percent, entropies in nats.

    F1 is that of the images that have a true mask; NaN if none has.

    Args:
        results: of its images.
        empty: policy for images whose masks are both empty, see `metrics.pixel.mean_score`.
    """

    def column(name):
        return np.array([getattr(result, name) for result in results])

    has_mask = column("has_mask")

    def percent(name):
        return 100 * dice.mean_score(column(name)[has_mask], empty=empty)

    def error(name):
        return 100 * float(np.mean(column(name) != column("true_label")))

    return {
        "num_images": len(results),
        "num_images_with_mask": int(np.count_nonzero(has_mask)),
        "classification_error": error("label"),
        "localizer_classification_error": error("localizer_label"),
        "f1_foreground": percent("f1_foreground"),
        "f1_background": percent("f1_background"),
        "entropy_foreground": float(np.mean(column("entropy_foreground"))),
        "entropy_background": float(np.mean(column("entropy_background"))),
        "baselines": {
            "all_ones": {
                "f1_foreground": percent("all_ones_f1_foreground"),
                "f1_background": percent("all_ones_f1_background"),
            }
        },
    }
