"""Prediction and annotation of one image side by side."""

from collections.abc import Mapping
import pathlib
import warnings

import numpy as np

from minmax_jax.base import file_names
from minmax_jax.data import dataset
from minmax_jax.evaluation import ImagePrediction, image_predictions
from minmax_jax.method import NO_SCORES, Score
from minmax_jax.report import layers

_HEIGHT_INCHES = 2.8
_PREDICTED_COLOR, _TRUE_COLOR = (f"#{bytes(color).hex()}" for color in (layers.PREDICTED_COLOR, layers.TRUE_COLOR))


def draw_panel(
    path: pathlib.Path,
    split: dataset.Split,
    prediction: ImagePrediction,
    *,
    threshold: float,
    scores: Mapping[str, Score] = NO_SCORES,
) -> None:
    """Writes a PNG: the image, its true mask if it has one, the predicted mask as heat map, and outlines on the image.

    Args:
        path: of the file.
        split: of the image.
        prediction: for the image.
        threshold: a pixel is foreground where the mask is at least this.
        scores: of the method, for the caption.
    """
    import matplotlib.figure  # Here, because it slows down the import of the library.

    image = split.read_image(prediction.index)
    true_mask = split.read_mask(prediction.index)
    height, width = image.shape[:2]
    figure = matplotlib.figure.Figure(
        figsize=((3 if true_mask is None else 4) * _HEIGHT_INCHES * width / height + 0.6, _HEIGHT_INCHES + 0.7),
        layout="constrained",
    )
    axes = figure.subplots(1, 3 if true_mask is None else 4)
    # Scales masks of another resolution to the image.
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes[0].imshow(image)
    axes[0].set_title("image", fontsize=9)
    if true_mask is not None:
        axes[1].imshow(true_mask, cmap="gray", vmin=0, vmax=1, extent=extent)
        axes[1].set_title("true mask", fontsize=9)
    heat = axes[-2].imshow(prediction.mask, cmap="inferno", vmin=0, vmax=1)
    figure.colorbar(heat, ax=axes[-2], fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)
    axes[-2].set_title("predicted mask", fontsize=9)
    axes[-1].imshow(image)
    if true_mask is not None:
        _outline(axes[-1], true_mask, 0.5, _TRUE_COLOR, extent)
    _outline(axes[-1], prediction.mask, threshold, _PREDICTED_COLOR, extent)
    axes[-1].set_title("outline" if true_mask is None else "outlines: predicted yellow, true blue", fontsize=9)
    for axis in axes:
        axis.set_axis_off()
    # Names are no formulas: without parse_math, a dollar sign would begin one.
    figure.suptitle(_caption(split, prediction, scores), fontsize=10, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box is drawn in its place
        figure.savefig(path, dpi=110)


def _outline(axis, mask: np.ndarray, level: float, color: str, extent: tuple[float, ...]) -> None:
    """Contour of a mask, if it crosses the level."""
    if np.min(mask) < level <= np.max(mask):
        left, right, bottom, top = extent
        rows, columns = (
            np.linspace(top + 0.5, bottom - 0.5, mask.shape[0]),
            np.linspace(left + 0.5, right - 0.5, mask.shape[1]),
        )
        axis.contour(columns, rows, mask, levels=[level], colors=[color], linewidths=1.4)


def _caption(split: dataset.Split, prediction: ImagePrediction, scores: Mapping[str, Score]) -> str:
    name = file_names.printable(split.names[prediction.index])
    true, predicted = split.labels[prediction.index], prediction.predicted
    class_names = [file_names.printable(class_name) for class_name in split.class_names]
    verdict = "correct" if true == predicted else f"wrong, true class {class_names[true]}"
    caption = f"{name}: {class_names[predicted]} ({prediction.probabilities.max():.2f}, {verdict})"
    shown = [
        f"{scores[name].title} {value:.2f} {scores[name].unit}".rstrip()
        for name, value in image_predictions.known_scores(prediction, scores).items()
    ]
    return "; ".join((caption, ", ".join(shown))) if shown else caption
