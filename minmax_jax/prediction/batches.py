"""Image files in batches of one shape, and back to predictions of single images; large ones in tiles, one by one."""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import errno
import pathlib
import shutil
from typing import NamedTuple

import numpy as np

from minmax_jax.base import disk, threads
from minmax_jax.base.errors import UserError, naming
from minmax_jax.data import canvases, padding, preprocessing
from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.method import Prediction
from minmax_jax.ops import canvas
from minmax_jax.prediction import sources
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.large import large_images, resampling
from minmax_jax.prediction.options import Options
from minmax_jax.prediction.predicted_images import Predicted, Skipped
from minmax_jax.runs.predictor import Predictor

# A process that has no memory or opened too many files cannot read intact ones.
_NOT_OF_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_MAX_WAITING = 8  # batches' worth of images that wait for others of their shape
_MAX_OPENED = 1000  # files whose sizes choose the canvases
NUM_THREADS = 2  # that read images while the networks compute, and as many that write: decoders free Python's lock


def predict(
    predictor: Predictor,
    inputs: Sequence[Input],
    options: Options,
    *,
    scratch: pathlib.Path,
    all_inputs: Sequence[Input] | None = None,
) -> Iterator[Predicted | Skipped]:
    """Predicts each file, in batches of one padded shape or canvas, which compiles once, in the order of the batches.

    Canvases are chosen by the sizes of at most 1000 of the files, evenly spaced, which are opened once before. The next
    files are read in threads, and the networks have begun with the next batch when the answers of one come.

    Args:
        predictor: the model.
        inputs: the files.
        options: of the prediction.
        scratch: folder for the masks of large images; each is deleted when the next answer is asked for.
        all_inputs: the files of the whole prediction, which decide on canvases and the size of batches, so that what is
            resumed is computed by the same programs; None: `inputs`.

    Raises:
        OSError: if what does not fit in memory cannot be written.
        UserError: if the disk lacks space for it.
    """
    all_inputs = inputs if all_inputs is None else all_inputs
    batch_size = min(options.batch_size, len(all_inputs))
    reads_sizes = inputs and predictor.reads_canvases
    shapes = choose_shapes(predictor, sample(predictor, all_inputs, options)) if reads_sizes else None

    def read(item: Input) -> _Read | Skipped:
        return _read(item, predictor, options)

    found = threads.map_in_order(read, inputs, num_threads=NUM_THREADS, num_ahead=max(NUM_THREADS, batch_size))
    waiting: dict[tuple[int, int], list] = {}
    running: Iterator[Predicted] = iter(())  # of the batch that the networks see while its predecessor is written
    with contextlib.closing(found):
        for index, item in enumerate(found):
            if isinstance(item, Skipped):
                yield item
                continue
            if item.source.tiling:
                yield from running
                running = iter(())
                yield from _predict_large(predictor, index, item.source, options, scratch)
                continue
            (shape,) = canvases.assign(np.array([item.prepared.shape[:2]]), shapes).tolist()
            group = waiting.setdefault(tuple(shape), [])
            group.append((index, *item))
            is_full = sum(map(len, waiting.values())) >= _MAX_WAITING * batch_size
            if len(group) == batch_size or is_full:
                fullest = max(waiting, key=lambda shape: len(waiting[shape]))
                started = _predict_batch(predictor, waiting.pop(fullest), batch_size, fullest, shapes is not None)
                yield from running
                running = started
    for shape, group in waiting.items():
        started = _predict_batch(predictor, group, batch_size, shape, shapes is not None)
        yield from running
        running = started
    yield from running


class _Read(NamedTuple):
    """An image file that is opened, and what the networks see of it; None of one that is cut into tiles."""

    source: sources.Source
    prepared: np.ndarray | None


def _read(item: Input, predictor: Predictor, options: Options) -> _Read | Skipped:
    try:
        source = sources.open_source(item, predictor, options)
        with naming(f"{item.path}: "):
            return _Read(source, None if source.tiling else source.preprocessing(source.pixels))
    except (UserError, OSError) as error:
        if not _is_of_file(error):
            raise
        return Skipped(item, str(error))


class Sampled(NamedTuple):
    """What is known of an image file once it was opened.

    Attributes:
        item: the file.
        size: (height, width) of the image as the networks see it; None of one that is cut into tiles or is not read.
        tiling: of one that is cut into tiles, or None.
        reason: why it cannot be read, or "".
    """

    item: Input
    size: tuple[int, int] | None = None
    tiling: sources.Tiling | None = None
    reason: str = ""


def sample(predictor: Predictor, inputs: Sequence[Input], options: Options) -> list[Sampled]:
    """Opens at most 1000 of the files, evenly spaced.

    Args:
        predictor: the model.
        inputs: the files.
        options: of the prediction.
    """
    chosen = np.linspace(0, len(inputs) - 1, min(len(inputs), _MAX_OPENED)).round().astype(int)

    def open_item(item: Input) -> Sampled:
        try:
            source = sources.open_source(item, predictor, options)
        except (UserError, OSError) as error:  # is dealt with when the image is read
            return Sampled(item, reason=str(error))
        if source.tiling:
            return Sampled(item, tiling=source.tiling)
        size = source.preprocessing.sizes(np.array([source.image.size]))[0].tolist()
        if min(size) < preprocessing.MIN_SIDE:
            return Sampled(item, reason=f"{item.path}: each side needs at least {preprocessing.MIN_SIDE} pixels.")
        return Sampled(item, size=tuple(size))

    found = threads.map_in_order(open_item, [inputs[index] for index in chosen], num_threads=NUM_THREADS, num_ahead=8)
    with contextlib.closing(found):
        return list(found)


def choose_shapes(predictor: Predictor, sampled: Sequence[Sampled]) -> np.ndarray | None:
    """The canvases [K, 2] for images that are not cut into tiles; None where padding makes few shapes.

    Args:
        predictor: the model.
        sampled: as of `sample`.
    """
    sizes = [found.size for found in sampled if found.size is not None]
    return canvases.choose(np.array(sizes)) if sizes and predictor.reads_canvases else None


class _UnreadableError(Exception):
    """A part of an image cannot be read."""


def _is_of_file(error: Exception) -> bool:
    """Whether an error of reading an image says that its file is bad."""
    return not disk.is_full(error) and getattr(error, "errno", None) not in _NOT_OF_THE_FILE


def _marking_errors(source: sources.Source) -> sources.Source:
    """The source, whose errors of reading differ from those of writing."""
    read = source.image.read

    def read_marked(*arguments):
        try:
            return read(*arguments)
        except (UserError, OSError) as error:
            if not _is_of_file(error):
                raise
            raise _UnreadableError(str(error)) from error

    return dataclasses.replace(source, image=dataclasses.replace(source.image, read=read_marked))


def _predict_batch(
    predictor: Predictor, group: list, batch_size: int, shape: tuple[int, int], is_canvas: bool
) -> Iterator[Predicted]:
    """Starts the networks, and returns what waits for them."""
    padded = [padding.pad(prepared) for *_, prepared in group]
    # Repeated images fill the batch: another number of images would compile the networks again.
    padded += [padded[-1]] * (batch_size - len(padded))
    images = np.stack([padding.place(image, shape) for image in padded])
    sizes = np.array([image.shape[:2] for image in padded], np.int32)
    return _finish_batch(predictor, group, predictor.predict(canvas.join(images, sizes if is_canvas else None)))


def _finish_batch(predictor: Predictor, group: list, answer: Prediction) -> Iterator[Predicted]:
    probabilities, masks = np.asarray(answer.probabilities), np.asarray(answer.masks)[..., 0]
    scores = {name: np.asarray(values) for name, values in answer.scores.items()}
    for row, (index, source, prepared) in enumerate(group):
        prediction = ImagePrediction(
            index=index,
            probabilities=probabilities[row],
            mask=predictor.finish_mask(masks[row], prepared.shape[:2], source.image.size),
            scores={name: values[row].item() for name, values in scores.items()},
        )
        yield Predicted(source, source.pixels, prediction, prediction.mask)


def _predict_large(
    predictor: Predictor, index: int, source: sources.Source, options: Options, scratch: pathlib.Path
) -> Iterator[Predicted | Skipped]:
    scratch.mkdir(exist_ok=True)
    try:
        with disk.explained(scratch.parent, needed_bytes=large_images.needed_bytes(source, predictor)):
            large = large_images.predict(
                predictor,
                _marking_errors(source),
                threshold=options.threshold,
                overlap=options.tile_overlap,
                batch_size=options.batch_size,
                scratch=scratch,
            )
        drawn = np.concatenate(list(resampling.resample(large.mask, large.picture.shape[:2])))
        prediction = ImagePrediction(index, large.probabilities, drawn, large.scores)
        yield Predicted(source, large.picture, prediction, large.mask, large.num_tiles)
    except _UnreadableError as error:
        yield Skipped(source.input, str(error))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
