"""Pictures of a run: panels of test images, and the report."""

from collections.abc import Iterator, Sequence
import contextlib
import logging
import pathlib

import numpy as np

from minmax_jax.base import file_names
from minmax_jax.data import dataset
from minmax_jax.evaluation import predict_split
from minmax_jax.evaluation.evaluators import Row
from minmax_jax.report import page, panels
from minmax_jax.runs.building.run import Run
from minmax_jax.runs.drawing import film_strips, gallery
from minmax_jax.training import state as state_lib

logger = logging.getLogger(__name__)
NUM_PICTURES = 8  # test images that are drawn


def draw(run: Run, folder: pathlib.Path, state: state_lib.TrainState, rows: Sequence[Row]) -> None:
    """Panels of test images, evenly spaced over the split, and the images that the report shows.

    Args:
        run: the run.
        folder: of the run.
        state: of the selected model.
        rows: of its test.
    """
    evaluation, pictures = run.options.evaluation, folder / "pictures"
    split, variables = run.splits["test"], state_lib.inference_variables(state)
    count = min(NUM_PICTURES, len(split))
    subset = dataset.subset(split, np.linspace(0, len(split) - 1, count).round().astype(int))
    for prediction in predict_split(
        lambda images: run.predict(variables, images),
        subset,
        batch_size=evaluation.batch_size,
        refine_fn=run.refine_fn,
        shapes=run.shapes,
    ):
        path = pictures / file_names.shorten(subset.names[prediction.index], ending=".png")
        with _warning("A picture", path):
            path.parent.mkdir(parents=True, exist_ok=True)  # An image's name may have folders.
            panels.draw_panel(path, subset, prediction, threshold=evaluation.threshold, scores=run.method.scores)
    with _warning("The gallery of the report", folder):
        gallery.write(run, folder, state, rows)
        film_strips.write(run, folder, state)


def write_report(folder: pathlib.Path) -> None:
    """The page of a run, from the files in its folder."""
    with _warning("The report", folder / page.NAME):
        page.write([folder])


@contextlib.contextmanager
def _warning(what: str, path: pathlib.Path) -> Iterator[None]:
    """Draws a file that is no result: whatever it fails at, the run goes on."""
    try:
        yield
    except Exception as error:
        logger.warning("%s could not be drawn: %s (%s: %s).", what, path, type(error).__name__, error)
