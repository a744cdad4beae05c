"""Image files in batches of one shape, and back to predictions of single images; large ones in tiles, one by one."""

from collections.abc import Iterator, Sequence
import pathlib
import shutil

import numpy as np

from minmax_jax import disk
from minmax_jax.data import padding
from minmax_jax.errors import UserError
from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.prediction import large_images, resampling, sources
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.predicted_images import Predicted, Skipped
from minmax_jax.runs.predictor import Predictor

_MOST_WAITING = 8  # batches' worth of images that wait for others of their shape


def predict(
    predictor: Predictor, inputs: Sequence[Input], options: Options, *, scratch: pathlib.Path
) -> Iterator[Predicted | Skipped]:
    """Predicts each file, in batches of one padded shape, which compiles once; the order is that of the batches.

    Args:
        predictor: the model.
        inputs: the files.
        options: of the prediction.
        scratch: folder for the masks of large images; each is deleted when the next answer is asked for.
    """
    batch_size = min(options.batch_size, len(inputs))
    waiting: dict[tuple[int, int], list] = {}
    for index, item in enumerate(inputs):
        try:
            source = sources.open_source(item, predictor, options)
            if source.tiling is not None:
                yield from _predict_large(predictor, index, source, options, scratch)
                continue
            prepared = source.preprocessing(source.pixels)
        except (UserError, OSError) as error:
            if disk.is_full(error):
                raise
            yield Skipped(item, str(error))
            continue
        group = waiting.setdefault(tuple(padding.padded_sizes(prepared.shape[:2]).tolist()), [])
        group.append((index, source, prepared))
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
    for row, (index, source, prepared) in enumerate(group):
        prediction = ImagePrediction(
            index=index,
            probabilities=probabilities[row],
            mask=predictor.finish_mask(masks[row], prepared, source.image.size),
            scores={name: values[row].item() for name, values in scores.items()},
        )
        yield Predicted(source, source.pixels, prediction, prediction.mask)


def _predict_large(
    predictor: Predictor, index: int, source: sources.Source, options: Options, scratch: pathlib.Path
) -> Iterator[Predicted]:
    scratch.mkdir(exist_ok=True)
    try:
        large = large_images.predict(
            predictor,
            source,
            threshold=options.threshold,
            overlap=options.tile_overlap,
            batch_size=options.batch_size,
            scratch=scratch,
        )
        drawn = np.concatenate(list(resampling.resample(large.mask, large.picture.shape[:2])))
        prediction = ImagePrediction(index, large.probabilities, drawn, large.scores)
        yield Predicted(source, large.picture, prediction, large.mask, large.num_tiles)
    finally:
        shutil.rmtree(scratch)
