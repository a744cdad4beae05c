"""Image files in batches of one shape, and back to predictions of single images."""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from minmax_jax.data import image_files, padding
from minmax_jax.errors import UserError
from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.prediction.inputs import Input
from minmax_jax.runs.predictor import Predictor

_MOST_WAITING = 8  # batches' worth of images that wait for others of their shape


@dataclasses.dataclass(frozen=True)
class Predicted:
    """An image file and its prediction.

    Attributes:
        input: the file.
        image: [H, W, 3] uint8, upright.
        prediction: with the mask at the image's own resolution.
    """

    input: Input
    image: np.ndarray
    prediction: ImagePrediction


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An image file that cannot be predicted.

    Attributes:
        input: the file.
        reason: for people.
    """

    input: Input
    reason: str


def predict(predictor: Predictor, inputs: Sequence[Input], *, batch_size: int) -> Iterator[Predicted | Skipped]:
    """Predicts each file, in batches of one padded shape, which compiles once; the order is that of the batches."""
    batch_size = min(batch_size, len(inputs))
    waiting: dict[tuple[int, int], list] = {}
    for index, item in enumerate(inputs):
        try:
            image = image_files.read_rgb(item.path.read_bytes(), str(item.path))
            prepared = predictor.preprocessing(image)
        except (UserError, OSError) as error:
            yield Skipped(item, str(error))
            continue
        group = waiting.setdefault(tuple(padding.padded_sizes(prepared.shape[:2]).tolist()), [])
        group.append((index, item, image, prepared))
        is_full = sum(map(len, waiting.values())) >= _MOST_WAITING * batch_size
        if len(group) == batch_size or is_full:
            shape = max(waiting, key=lambda shape: len(waiting[shape]))
            yield from _predict_batch(predictor, waiting.pop(shape), batch_size)
    for group in waiting.values():
        yield from _predict_batch(predictor, group, batch_size)


def _predict_batch(predictor: Predictor, group: list, batch_size: int) -> Iterator[Predicted]:
    padded = [padding.pad(prepared) for *_, prepared in group]
    # Repeated images fill the batch: another number of images would compile the networks again.
    answer = predictor.predict(np.stack(padded + [padded[-1]] * (batch_size - len(padded))))
    probabilities, masks = np.asarray(answer.probabilities), np.asarray(answer.masks)[..., 0]
    scores = {name: np.asarray(values) for name, values in answer.scores.items()}
    for row, (index, item, image, prepared) in enumerate(group):
        prediction = ImagePrediction(
            index=index,
            probabilities=probabilities[row],
            mask=predictor.finish_mask(masks[row], prepared, image.shape[:2]),
            scores={name: values[row].item() for name, values in scores.items()},
        )
        yield Predicted(item, image, prediction)
