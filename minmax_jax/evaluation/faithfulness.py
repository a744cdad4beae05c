"""Whether a mask shows what a classifier looks at, for any function from images to probabilities.

Each number alone says nothing: it depends on the classifier, and on how much of the image the mask covers. Those of a
random map and of a box of the same area stand next to it.

Sources: insertion and deletion, Petsiuk et al. (BMVC 2018); average drop and increase, Chattopadhay et al. (WACV 2018);
the pointing game, Zhang et al. (ECCV 2016).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from minmax_jax.base import options
from minmax_jax.evaluation import baselines

# [B, H, W, 3] uint8 images to [B, C] probabilities.
ProbabilitiesFn = Callable[[np.ndarray], np.ndarray]
FILLS = ("mean", "blur")
KINDS = ("mask", "random", "box")


def score(
    probabilities_fn: ProbabilitiesFn,
    image: np.ndarray,
    mask: np.ndarray,
    *,
    true_mask: np.ndarray | None = None,
    num_steps: int = 20,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """The numbers of one image, for the class that is predicted for it.

    Args:
        probabilities_fn: the classifier; called with the image, changed, in batches of at most `num_steps` + 1.
        image: [H, W, 3] uint8.
        mask: [H, W] soft mask; only the order of its values and their mean count.
        true_mask: [H, W] bool, for the pointing game; None leaves it out.
        num_steps: of the insertion and deletion curves.
        seed: of the random map.

    Returns:
        For the "mask", a smooth "random" map and a "box" in the middle, with the values of the mask in another order:
        "insertion_FILL" and "deletion_FILL", areas under the probability as the highest pixels appear in, or vanish
        from, an image filled by its "mean" or a "blur" (insertion: high is good; deletion: low is good);
        "average_drop", share of the probability that is lost where the image is multiplied by the map on its mean;
        "increase", 1 where it rises instead; "pointing", the share of the pixels of highest value, mostly one, that
        are in the true mask.

    Raises:
        OptionError: for shapes that do not fit, or fewer than one step.

    Example:
        A classifier that looks at the brightness of the upper half alone, and a mask that shows it:

        >>> import numpy as np
        >>> from minmax_jax.evaluation import faithfulness
        >>> def classify(images):
        ...     bright = images[:, :8].mean(axis=(1, 2, 3)) / 255
        ...     return np.stack([bright, 1 - bright], axis=-1)
        >>> image, mask = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16))
        >>> image[:8], mask[:8] = 255, 1
        >>> found = faithfulness.score(classify, image, mask)
        >>> found["mask"]["average_drop"], found["mask"]["insertion_mean"] > found["random"]["insertion_mean"]
        (0.0, True)
    """
    options.check_range("num_steps", num_steps, 1)
    if mask.shape != image.shape[:2]:
        raise options.OptionError(f"mask={list(mask.shape)} must have the size of the image, {list(image.shape[:2])}.")
    whole = np.asarray(probabilities_fn(image[None]))[0]
    predicted = int(np.argmax(whole))
    filled = {name: _fill(image, name) for name in FILLS}
    found = {}
    for kind, values in _maps(np.asarray(mask, np.float64), np.random.default_rng(seed)).items():
        order = np.argsort(-values.ravel(), kind="stable")
        numbers = {}
        for name, fill in filled.items():
            numbers[f"insertion_{name}"] = _area(probabilities_fn, fill, image, order, predicted, num_steps)
            numbers[f"deletion_{name}"] = _area(probabilities_fn, image, fill, order, predicted, num_steps)
        shown = filled["mean"] + values[..., None] * (image - filled["mean"].astype(float))
        through = np.asarray(probabilities_fn(np.round(shown).astype(np.uint8)[None]))[0, predicted]
        numbers["average_drop"] = float(max(0.0, whole[predicted] - through) / whole[predicted])
        numbers["increase"] = float(through > whole[predicted])
        if true_mask is not None:
            numbers["pointing"] = float(true_mask[values == values.max()].mean())
        found[kind] = numbers
    return found


def summarize(rows: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Means over images that have a number, and standard errors of the differences from the random map and the box.

    Returns:
        {number: {kind: mean, "better_than_random" and "better_than_box": (mean difference, its standard error)}}; the
        difference is positive where the mask is better.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row["mask"]):
        values = {kind: np.array([row[kind][name] for row in rows if name in row[kind]]) for kind in KINDS}
        sign = -1.0 if name.startswith(("deletion", "average_drop")) else 1.0
        summary[name] = {kind: float(of_kind.mean()) for kind, of_kind in values.items()}
        for kind in KINDS[1:]:
            difference = sign * (values["mask"] - values[kind])
            error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else None
            summary[name][f"better_than_{kind}"] = (float(difference.mean()), error)
    return summary


def _maps(mask: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The mask, and its values in the order of a smooth random pattern and of a box that grows from the middle."""
    height, width = mask.shape
    y, x = np.abs(np.arange(height) - (height - 1) / 2), np.abs(np.arange(width) - (width - 1) / 2)
    patterns = {
        "random": baselines.random_pattern(mask.shape, rng),
        "box": -np.maximum(y[:, None] / height, x[None] / width),
    }
    return {"mask": mask} | {kind: baselines.rearrange(mask, pattern) for kind, pattern in patterns.items()}


def _fill(image: np.ndarray, name: str) -> np.ndarray:
    """[H, W, 3] uint8, what is seen where the image is not."""
    if name == "mean":
        return np.broadcast_to(np.round(image.mean(axis=(0, 1))).astype(np.uint8), image.shape)
    sigma = max(image.shape[:2]) / 16
    return np.round(ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0))).astype(np.uint8)


def _area(
    probabilities_fn: ProbabilitiesFn,
    start: np.ndarray,
    end: np.ndarray,
    order: np.ndarray,
    predicted: int,
    num_steps: int,
) -> float:
    """Area under the probability, by trapezoids, as pixels of `end` replace those of `start` in their order."""
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    place = place.reshape(start.shape[:2])[..., None]
    counts = np.round(np.linspace(0, order.size, num_steps + 1)).astype(int)
    images = np.stack([np.where(place < count, end, start) for count in counts])
    probabilities = np.asarray(probabilities_fn(images))[:, predicted].astype(float)
    return float(np.trapezoid(probabilities, counts / order.size))
