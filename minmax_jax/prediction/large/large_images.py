"""Images that are too large for one pass: masks of tiles are blended, and what does not fit in memory is in files."""

from collections.abc import Callable, Iterator
import functools
import math
import pathlib
import shutil
from typing import NamedTuple

import numpy as np

from minmax_jax.base import progress
from minmax_jax.base.errors import UserError
from minmax_jax.data import padding, slides, stains
from minmax_jax.method import Prediction
from minmax_jax.prediction.large import blending, resampling, tile_scores
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.sources import Source
from minmax_jax.runs.predictor import Predictor

_PICTURE_SIDE = 2048  # maximum side of the reduced copy that is drawn
_STAIN_SIDE = 1024  # of the one in which stains are looked for
_MAX_VALUES = 1 << 22  # of a mask, for its distribution
# Bytes of files, for each pixel as the networks see it: the soft mask and its reduced copies, regions, and, where
# classes have no region, the weight of tiles with one.
_BYTES, _BYTES_OF_COVER = 10, 4
_MIN_COVER = 1e-3


class LargePrediction(NamedTuple):
    """The prediction for a large image.

    Attributes:
        mask: [h, w] soft mask, of the image as the networks see it.
        probabilities: [C].
        scores: by name.
        picture: [H', W', 3] uint8, a reduced copy of the image.
        num_tiles: that were predicted.
    """

    mask: DiskArray
    probabilities: np.ndarray
    scores: dict[str, float]
    picture: np.ndarray
    num_tiles: int


def predict(
    predictor: Predictor, source: Source, *, threshold: float, overlap: float, batch_size: int, scratch: pathlib.Path
) -> LargePrediction:
    """Predicts tiles and blends them.

    Args:
        predictor: the model.
        source: an image with a tiling.
        threshold: a pixel is foreground where the mask is at least this.
        overlap: minimum share of a tile that the next one shows as well.
        batch_size: tiles that are predicted together.
        scratch: folder for the files of the mask.

    Raises:
        UserError: if the file is damaged, or the disk lacks space.
    """
    grid = blending.create_grid(source.tiling.size, source.tiling.side, overlap=overlap)
    _check_space(source, predictor, scratch)
    answers: list[Prediction] = []
    has_region: list[bool] = []  # of each tile's class

    def predicted_masks():
        for answer in predict_tiles(predictor, source, grid, batch_size=batch_size):
            answers.append(answer.replace(masks=None))
            has_region.append(int(np.argmax(answer.probabilities)) not in predictor.background_classes)
            # Masks of a second stage are not scaled yet.
            fading = 1.0 if predictor.calibrate_fn else tile_scores.fading(answer.probabilities)
            yield fading * answer.masks

    # Not yet calibrated masks may lie close together.
    mask = DiskArray(scratch / "mask", grid.size, np.float32 if predictor.calibrate_fn else np.float16)
    with progress.meter(source.input.path.name, total=len(grid.windows), unit="tile") as update:
        blending.blend(mask, grid, _counted(predicted_masks(), update))
    if predictor.calibrate_fn is not None:
        covered = None if all(has_region) else _cover(grid, has_region, scratch)
        _calibrate(mask, predictor.calibrate_fn, covered)
    # A tile of a class without a region may show a neighbour's foreground, which is no evidence of its class.
    shares = [
        np.mean(mask[top:bottom, left:right] >= threshold) * is_shown
        for (top, left, bottom, right), is_shown in zip(grid.windows, has_region)
    ]
    probabilities, scores = tile_scores.combine(answers, shares, declared=predictor.scores)
    if int(np.argmax(probabilities)) in predictor.background_classes:
        for top, bottom in resampling.bands(*mask.shape):
            mask[top:bottom] = 0
    return LargePrediction(mask, probabilities, scores, _read_reduced(source, _PICTURE_SIDE), len(answers))


def needed_bytes(source: Source, predictor: Predictor) -> int:
    """What the files take that an image with a tiling needs while it is predicted."""
    return (_BYTES + _BYTES_OF_COVER * bool(predictor.background_classes)) * math.prod(source.tiling.size)


def _check_space(source: Source, predictor: Predictor, scratch: pathlib.Path) -> None:
    needed, free = needed_bytes(source, predictor) / 2**20, shutil.disk_usage(scratch).free / 2**20
    if needed > free:
        raise UserError(
            f"{scratch.parent} lacks space: {source.input.path} needs {needed:.1f} MiB there while it is predicted, and"
            f" {free:.1f} MiB are free. Make room, or choose another folder, and rerun the command."
        )


def _counted(items: Iterator, update: Callable[[int], None]) -> Iterator:
    for item in items:
        yield item
        update(1)


def _read_reduced(source: Source, side: int) -> np.ndarray:
    """The whole image with at most this many pixels a side."""
    scale = min(1.0, side / max(source.image.size))
    return source.image.read((0, 0, *source.image.size), tuple(max(1, round(scale * n)) for n in source.image.size))


def _find_stains(predictor: Predictor, source: Source) -> stains.Stains | None:
    """Those of the whole image: tiles would be normalized each in its own way, and seams would show."""
    if predictor.preprocessing.stain_normalization == "none":
        return None
    return stains.find_stains(_read_reduced(source, _STAIN_SIDE))


def _read_window(source: Source, of_image: stains.Stains | None, window: tuple[int, int, int, int]) -> np.ndarray:
    """A window (top, left, bottom, right) of the image as the networks see it, [h, w, 3] uint8."""
    size = (window[2] - window[0], window[3] - window[1])
    step = tuple(old / new for old, new in zip(source.image.size, source.tiling.size))
    box = tuple(np.multiply(window, step * 2).tolist())
    pixels = source.image.read(box, size) if min(step) >= 1 else slides.read_enlarged(source.image, box, size)
    return pixels if of_image is None else stains.replace_stains(pixels, of_image)


def predict_tiles(
    predictor: Predictor, source: Source, grid: blending.Grid, *, batch_size: int
) -> Iterator[Prediction]:
    """The prediction of each tile, its mask [h, w]; the next batch is read while the networks compute.

    Args:
        predictor: the model.
        source: an image with a tiling.
        grid: its tiles.
        batch_size: tiles that are predicted together.
    """
    read = functools.partial(_read_window, source, _find_stains(predictor, source))
    earlier, batch_size = None, min(batch_size, len(grid.windows))
    for start in range(0, len(grid.windows), batch_size):
        tiles = [padding.pad(read(window)) for window in grid.windows[start : start + batch_size]]
        # Another number of tiles would compile the networks again.
        later = predictor.predict(np.stack(tiles + [tiles[-1]] * (batch_size - len(tiles)))), len(tiles)
        if earlier is not None:
            yield from _tiles_of(*earlier, grid.sides)
        earlier = later
    yield from _tiles_of(*earlier, grid.sides)


def _tiles_of(answer: Prediction, count: int, sides: tuple[int, int]) -> Iterator[Prediction]:
    masks, probabilities = np.asarray(answer.masks)[..., 0], np.asarray(answer.probabilities)
    scores = {name: np.asarray(values) for name, values in answer.scores.items()}
    for row in range(count):
        of_tile = {name: values[row] for name, values in scores.items()}
        yield Prediction(probabilities[row], padding.crop_back(masks[row], sides), of_tile)


def _cover(grid: blending.Grid, has_region: list[bool], scratch: pathlib.Path) -> DiskArray:
    """[h, w], the weight of the tiles that have a region: the empty masks of the others say nothing of the values."""
    covered = DiskArray(scratch / "covered", grid.size, np.float32)
    blending.blend(covered, grid, (np.full(grid.sides, is_shown, np.float32) for is_shown in has_region))
    return covered


def _calibrate(mask: DiskArray, calibrate_fn: Callable[..., np.ndarray], covered: DiskArray | None) -> None:
    """Scales the mask by the distribution of its values, of the whole image.

    With `covered`, of `_cover`, these are means over the tiles with a region alone; what is scaled fades with them.
    """
    values = _sample(mask)
    if covered is not None:
        weights = _sample(covered)
        values = values[weights > _MIN_COVER] / weights[weights > _MIN_COVER]
    for top, bottom in resampling.bands(*mask.shape) if values.size else ():
        part = mask[top:bottom, :]
        if covered is None:
            mask[top:bottom] = calibrate_fn(part, of=values)
        else:
            weights = covered[top:bottom, :]
            mask[top:bottom] = weights * calibrate_fn(part / np.maximum(weights, _MIN_COVER), of=values)


def _sample(array: DiskArray) -> np.ndarray:
    """[m, n] values of an array, evenly spaced, at most about `_MAX_VALUES`."""
    step = math.ceil(math.sqrt(array.shape[0] * array.shape[1] / _MAX_VALUES))
    return np.concatenate([array[row : row + 1, ::step] for row in range(step // 2, array.shape[0], step)])
