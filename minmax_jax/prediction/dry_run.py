"""What a prediction of files will take, from one or two batches of them: the output folder is only read."""

from collections.abc import Iterator, Mapping, Sequence
import pathlib
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

from minmax_jax.data import canvases
from minmax_jax.method import Prediction
from minmax_jax.prediction import batches, folder, sources
from minmax_jax.prediction.batches import Sampled
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.large import blending, large_images
from minmax_jax.prediction.options import Options
from minmax_jax.runs import estimate
from minmax_jax.runs.estimate import Part
from minmax_jax.runs.measured_work import Duration, counting_kept, measure
from minmax_jax.runs.predictor import Predictor

_BATCHES = 2  # that are timed, after the first
_LEFT_OUT = "the start and the tables"


class Work(NamedTuple):
    """What is predicted.

    Attributes:
        inputs: all files.
        rest: those that are not predicted yet.
        sampled: of all, those that were opened.
        sampled_rest: of the rest, those that were opened.
        opening: seconds that the former took.
    """

    inputs: Sequence[Input]
    rest: Sequence[Input]
    sampled: Sequence[Sampled]
    sampled_rest: Sequence[Sampled]
    opening: float

    @property
    def factor(self) -> float:
        """Files of the rest for each that was opened."""
        return len(self.rest) / max(1, len(self.sampled_rest))


def describe(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: pathlib.Path,
    options: Options,
    *,
    model: Mapping[str, Any],
    results: Mapping[str, Any],
) -> str:
    """Checks what a prediction checks before its first image, measures some images, and says what all will take.

    Args:
        predictor: the model.
        inputs: the files.
        output: folder of the prediction, which need not exist.
        options: of the prediction.
        model: as of `folder.predict`.
        results: as of `folder.predict`.

    Returns:
        Files, shapes, tiles, views, expected minutes by part, and memory, in lines.

    Raises:
        UserError: as of `folder.predict`.
    """
    others = estimate.describe_others()
    rest = folder.find_rest(inputs, output, options, model=model)
    started = time.perf_counter()
    sampled = batches.sample(predictor, inputs, options)
    opening = time.perf_counter() - started
    of_rest = sampled if len(rest) == len(inputs) else batches.sample(predictor, rest, options)
    work = Work(inputs, rest, sampled, of_rest, opening)
    shapes = batches.choose_shapes(predictor, sampled)
    lines = [f"Dry run: nothing is written to {output}.", *_describe_work(work, shapes, options)]
    lines.append(f"Views: {_describe_views(predictor.card)}.")
    if not rest:
        return "\n".join([*lines, "Expected: nothing but the tables, all images are predicted."])
    return "\n".join([*lines, *_measure(predictor, work, shapes, options, results), *others])


def _describe_work(work: Work, shapes: np.ndarray | None, options: Options) -> Iterator[str]:
    done = len(work.inputs) - len(work.rest)
    yield f"Images: {len(work.inputs)}, of which {done} are predicted already; {len(work.rest)} remain."
    opened = f"{len(work.sampled_rest)} of these were opened"
    if unreadable := [found for found in work.sampled_rest if found.reason]:
        yield f"Unreadable: {len(unreadable)} ({opened}), such as: {unreadable[0].reason}"
    else:
        yield f"Unreadable: 0 ({opened}; a damaged file shows when it is read)."
    if sizes := _sizes(work.sampled_rest):
        yield f"Shapes: {estimate.describe_range(np.array(sizes))}; {_describe_shapes(work, shapes)}."
    if tilings := _tilings(work.sampled_rest):
        tiles = _count_tiles(tilings, options)
        yield (
            f"Large images: {round(work.factor * len(tilings))}, cut into {round(work.factor * tiles)} tiles of"
            f" {_list({f'{tiling.side}x{tiling.side}' for tiling in tilings})} pixels."
        )


def _describe_shapes(work: Work, shapes: np.ndarray | None) -> str:
    return estimate.describe_shapes(np.array(_sizes(work.sampled if shapes is not None else work.sampled_rest)), shapes)


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _sizes(sampled: Sequence[Sampled]) -> list[tuple[int, int]]:
    return [found.size for found in sampled if found.size is not None]


def _tilings(sampled: Sequence[Sampled]) -> list[sources.Tiling]:
    return [found.tiling for found in sampled if found.tiling is not None]


def _count_tiles(tilings: Sequence[sources.Tiling], options: Options) -> int:
    return sum(len(_create_grid(tiling, options).windows) for tiling in tilings)


def _create_grid(tiling: sources.Tiling, options: Options) -> blending.Grid:
    return blending.create_grid(tiling.size, tiling.side, overlap=options.tile_overlap)


def _describe_views(card: Mapping[str, Any]) -> str:
    flips, scales = 2 ** sum(map(bool, card["flips"].values())), len(card["scales"])
    of_image = f"{flips * scales} of each image ({flips} by mirroring, {scales} by size)"
    return f"{of_image}, masks of the {'second' if card['refine']['enabled'] else 'first'} stage"


def _measure(
    predictor: Predictor, work: Work, shapes: np.ndarray | None, options: Options, results: Mapping[str, Any]
) -> list[str]:
    """The lines with minutes, images per second and memory."""
    parts, durations, lines = [Part("opening files", work.opening, "measured")], [], []
    if sizes := _sizes(work.sampled_rest):
        batch_size = min(options.batch_size, len(work.inputs))
        load = estimate.find_load(np.array(sizes), shapes, batch_size=batch_size)
        readable = [found.item for found in work.sampled_rest if found.size is not None]
        typical = [readable[index] for index in load.typical]
        found = _measure_images(predictor, typical, work, options, batch_size, results)
        num_images = round(work.factor * len(sizes))
        (shape,) = canvases.assign(np.array(sizes[load.typical[0]])[None], shapes).tolist()
        basis = f"{found.each / batch_size:.3g} s an image of {shape[0]}x{shape[1]}, outputs included"
        parts.append(Part(f"{num_images} images", work.factor * load.num_batches * found.each, basis))
        durations.append((found, load.num_shapes))
        lines.append(f"Speed: {batch_size / found.each:.3g} images/s, in batches of {batch_size}.")
    if tilings := _tilings(work.sampled_rest):
        first = next(found.item for found in work.sampled_rest if found.tiling is not None)
        found = _measure_tiles(predictor, sources.open_source(first, predictor, options), options)
        num_tiles = round(work.factor * _count_tiles(tilings, options))
        basis = f"{found.each:.3g} s each; blending and outputs left out"
        parts.append(Part(f"{num_tiles} tiles", num_tiles * found.each, basis))
        durations.append((found, len({tiling.side for tiling in tilings})))
    compiling, kept = estimate.compiling(durations)
    return [
        estimate.describe_parts([*parts, compiling], kept=kept, left_out=_LEFT_OUT),
        *lines,
        f"Memory: {estimate.describe_memory({})}.",
    ]


def _measure_images(
    predictor: Predictor,
    typical: Sequence[Input],
    work: Work,
    options: Options,
    batch_size: int,
    results: Mapping[str, Any],
) -> Duration:
    """Seconds of a batch, with reading and all outputs, which are written to a temporary folder."""
    chosen = [
        typical[number % len(typical)]._replace(stem=f"{number}") for number in range((1 + _BATCHES) * batch_size)
    ]
    times = []
    with tempfile.TemporaryDirectory() as scratch, counting_kept() as kept:
        started = time.perf_counter()
        folder.predict_some(
            predictor,
            chosen,
            pathlib.Path(scratch) / "output",
            options,
            all_inputs=work.inputs,
            results=results,
            update=lambda _: times.append(time.perf_counter()),
        )
    each = (times[-1] - times[batch_size - 1]) / _BATCHES
    first = max(0.0, times[batch_size - 1] - started - work.opening - each)
    return Duration(each, first, min(first, kept()))


def _measure_tiles(predictor: Predictor, source: sources.Source, options: Options) -> Duration:
    """Seconds of a tile."""
    grid = _create_grid(source.tiling, options)
    batch_size = min(options.batch_size, len(grid.windows))

    def predict_endlessly() -> Iterator[Prediction]:
        while True:  # an image of few tiles again
            yield from large_images.predict_tiles(predictor, source, grid, batch_size=batch_size)

    tiles = predict_endlessly()
    found = measure(lambda: [next(tiles) for _ in range(batch_size)], repetitions=_BATCHES - 1)
    return found._replace(each=found.each / batch_size)
