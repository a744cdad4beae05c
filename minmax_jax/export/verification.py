"""Compares a file with the model that it was made from: what was not compared is not handed over."""

from collections.abc import Callable, Mapping
import dataclasses
import itertools
import logging

import numpy as np
from PIL import Image

from minmax_jax.base.errors import UserError
from minmax_jax.data import preprocessing
from minmax_jax.export import networks
from minmax_jax.runs.predictor import Predictor

logger = logging.getLogger(__name__)
TOLERANCE = 1e-4  # of probabilities and masks, and of entropies in nats
BATCHES = (1, 3)
_NOT_KEPT = "It was not kept."
_COARSE = 8  # pixels, height and width of the noise that smooth images are enlarged from
_MAX_COLORS = 16  # images that are tried for one with an empty mask, and one with another
_MIN_MARGIN = 0.01  # between the two most probable classes: rounding must not decide whether a mask is empty


class ExportError(UserError):
    """A file that does not compute what the model computes."""


def random_images(size: tuple[int, int], *, number: int, seed: int = 0) -> np.ndarray:
    """Images of noise in every pixel, and of smooth noise, in turn.

    Args:
        size: (H, W).
        number: of images, at least 1.
        seed: of the noise.

    Returns:
        [number, H, W, 3] uint8.
    """
    rng, (height, width) = np.random.default_rng(seed), size

    def draw(index):
        sides = size if index % 2 == 0 else (_COARSE, _COARSE)
        noise = Image.fromarray(rng.integers(0, 256, (*sides, 3), np.uint8))
        return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))

    return np.stack([draw(index) for index in range(number)])


def choose_images(predictor: Predictor, size: tuple[int, int]) -> np.ndarray:
    """[B, H, W, 3] uint8, as many as `BATCHES` says together: random ones.

    Of a model with classes without a region, one of the first two is predicted to be of such a class and the other not,
    so that an empty mask is compared as well, if random images and plain ones of many colours have both.
    """
    images = random_images(size, number=sum(BATCHES))
    if not predictor.background_classes:
        return images
    colors = np.random.default_rng(1).integers(0, 256, (_MAX_COLORS, 1, 1, 3), np.uint8)
    plain = np.broadcast_to(colors, (_MAX_COLORS, *size, 3))
    found: dict[bool, np.ndarray] = {}  # by whether the mask is empty
    for image in itertools.chain(images, random_images(size, number=_MAX_COLORS, seed=1), plain):
        answer = predict(predictor, image[None])
        second, first = np.sort(answer["probabilities"][0])[-2:]
        if first - second > _MIN_MARGIN:
            found.setdefault(not answer["masks"].any(), image)
        if len(found) == 2:
            return np.stack([found[True], found[False], *images[2:]])
    logger.warning(
        "Of %d images the model names a class %s a region for none: only the others were compared.",
        *(len(images) + 2 * _MAX_COLORS, "without" if False in found else "with"),
    )
    return images


def predict(predictor: Predictor, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the model says of images [B, H, W, 3] uint8 that are preprocessed already, by the names of a file."""
    without = dataclasses.replace(predictor, preprocessing=preprocessing.Preprocessing())
    predictions = [without(image[None]) for image in images]
    answers = [
        {"probabilities": prediction.probabilities, "masks": prediction.masks, **prediction.scores}
        for prediction in predictions
    ]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def check(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]], images: np.ndarray, expected: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The maximum differences of a file from its model, by name, over batches of several sizes.

    Args:
        run: the function in the file, of [B, H, W, 3] float32 in [-1, 1].
        images: [B, H, W, 3] uint8, as many as `BATCHES` says together.
        expected: of `predict`; may have more entries than the file has.

    Raises:
        ExportError: if a class differs, or a number by more than the tolerance.
    """
    differences = {}
    for end, number in zip(np.cumsum(BATCHES), BATCHES):
        rows = slice(end - number, end)
        results = run(np.float32(images[rows]) / np.float32(127.5) - 1)
        for name, values in results.items():
            wanted = expected[name][rows]
            if values.shape != wanted.shape:
                raise ExportError(
                    f"the file has {name}{list(values.shape)}, the model {list(wanted.shape)}. {_NOT_KEPT}"
                )
            differences[name] = max(differences.get(name, 0.0), _distance(values, wanted))
        _check_classes(results["probabilities"], expected["probabilities"][rows])
    if wrong := {name: difference for name, difference in differences.items() if not difference <= TOLERANCE}:
        listed = ", ".join(f"{name} by {difference:.3g}" for name, difference in wrong.items())
        raise ExportError(f"the file differs from the model: {listed}; {TOLERANCE:g} is allowed. {_NOT_KEPT}")
    return {name: differences[name] for name in (*networks.OUTPUTS, *differences)}


def _distance(values: np.ndarray, wanted: np.ndarray) -> float:
    """The maximum difference; infinite if a number is not finite."""
    distance = np.max(np.abs(values - wanted))
    return float(distance) if np.isfinite(distance) else np.inf


def _check_classes(probabilities: np.ndarray, expected: np.ndarray) -> None:
    """The class of the file is the most probable of the model, or as probable up to the tolerance."""
    chosen = np.take_along_axis(expected, probabilities.argmax(-1)[:, None], axis=-1)[:, 0]
    if np.any(wrong := expected.max(-1) - chosen > TOLERANCE):
        raise ExportError(f"the file names another class than the model for {wrong.sum()} images. {_NOT_KEPT}")
