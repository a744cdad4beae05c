"""What was found in an image, beside what is there."""

import pathlib

import numpy as np

from minmax_jax.data import dataset
from minmax_jax.evaluation import evaluate

_HEIGHT_INCHES = 2.8
_FOUND_COLOR, _TRUE_COLOR = "#ffd400", "#00d5ff"


def draw_panel(path: pathlib.Path, split: dataset.Split, found: evaluate.Found, *, threshold: float) -> None:
    """Writes a PNG: the image, its true mask if it has one, the found mask as heat map, and outlines on the image.

    Args:
        path: of the file.
        split: that the image belongs to.
        found: in the image.
        threshold: a pixel is foreground where the mask is at least this.
    """
    import matplotlib.figure  # Here, so that importing the library stays light.

    image = split.read_image(found.index)
    true_mask = split.read_mask(found.index)
    height, width = image.shape[:2]
    figure = matplotlib.figure.Figure(
        figsize=(4 * _HEIGHT_INCHES * width / height + 0.6, _HEIGHT_INCHES + 0.7), layout="constrained"
    )
    axes = figure.subplots(1, 4)
    # The extent lays masks of another resolution over the image.
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes[0].imshow(image)
    axes[0].set_title("image", fontsize=9)
    if true_mask is None:
        axes[1].set_title("no true mask", fontsize=9)
    else:
        axes[1].imshow(true_mask, cmap="gray", vmin=0, vmax=1, extent=extent)
        axes[1].set_title("true mask", fontsize=9)
    heat = axes[2].imshow(found.mask, cmap="inferno", vmin=0, vmax=1)
    figure.colorbar(heat, ax=axes[2], fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)
    axes[2].set_title("found mask", fontsize=9)
    axes[3].imshow(image)
    if true_mask is not None:
        _outline(axes[3], true_mask, 0.5, _TRUE_COLOR, extent)
    _outline(axes[3], found.mask, threshold, _FOUND_COLOR, extent)
    axes[3].set_title("outlines: found yellow, true blue", fontsize=9)
    for axis in axes:
        axis.set_axis_off()
    figure.suptitle(_caption(split, found), fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)  # An image's name may have folders.
    figure.savefig(path, dpi=110)


def _outline(axis, mask: np.ndarray, level: float, color: str, extent: tuple[float, ...]) -> None:
    """Contour of a mask; one that lies all on one side of the level has none."""
    if np.min(mask) < level <= np.max(mask):
        left, right, bottom, top = extent
        rows, columns = (
            np.linspace(top + 0.5, bottom - 0.5, mask.shape[0]),
            np.linspace(left + 0.5, right - 0.5, mask.shape[1]),
        )
        axis.contour(columns, rows, mask, levels=[level], colors=[color], linewidths=1.4)


def _caption(split: dataset.Split, found: evaluate.Found) -> str:
    true, label = split.class_names[split.labels[found.index]], split.class_names[found.label]
    verdict = "right" if true == label else f"wrong, it is {true}"
    return (
        f"{split.names[found.index]}: {label} ({found.probabilities[found.label]:.2f}, {verdict});"
        f" entropy {found.foreground_entropy:.2f} on the foreground, {found.background_entropy:.2f} nats on the rest"
    )
