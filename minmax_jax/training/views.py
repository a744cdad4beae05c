"""Test-time augmentation of any method: means over mirror images and sizes of the images."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import math

import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax import masks
from minmax_jax.method import DISAGREEMENT, Prediction
from minmax_jax.ops import canvas, free_sizes

_GRID = 32  # largest output stride of a trunk
_MAX_PIXELS = 1 << 21  # of all mirror images of a batch that are predicted together; more would take much memory

# Images [B, h, w, 3] in [-1, 1], of any size, or a `Canvas`, to ([B, h, w, 1] masks, scores [B, ...] by name).
PredictView = Callable[[canvas.Images], tuple[jax.Array, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of an image that a prediction is a mean over; each costs as much as the first.

    Attributes:
        flip_horizontal: whether the mirror image counts.
        flip_vertical: the same with top and bottom exchanged; both flips together give four views.
        scales: sizes, as shares of the image's; sides are rounded to multiples of 32.
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    scales: tuple[float, ...] = (1.0,)


ONE = Views()


def predict(
    predict_view: PredictView, images: canvas.Images, *, views: Views = ONE, background_classes: Sequence[int] = ()
) -> Prediction:
    """The prediction of a method from what it finds in one view.

    Args:
        predict_view: with "probabilities" [B, C] among its scores.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1]; a `Canvas` where `predict_view` reads it.
        views: of each image.
        background_classes: those without a region: where the mean over the views names one, the mask is empty.
    """
    foreground, scores = mean_over_views(predict_view, canvas.normalize(images), views)
    probabilities = scores["probabilities"]
    return Prediction(
        probabilities=probabilities,
        masks=without_background(foreground, probabilities, background_classes),
        scores={name: values for name, values in scores.items() if name != "probabilities"},
    )


def without_background(foreground: jax.Array, probabilities: jax.Array, background_classes: Sequence[int]) -> jax.Array:
    """Masks [B, H, W, 1] with 0 everywhere where the most probable class has no region.

    Args:
        foreground: [B, H, W, 1] masks.
        probabilities: [B, C] of the classes.
        background_classes: those without a region.
    """
    if not background_classes:
        return foreground
    is_empty = masks.is_background(jnp.argmax(probabilities, axis=-1), background_classes)
    return jnp.where(is_empty[:, None, None, None], 0, foreground)


def mean_over_views(
    predict_view: PredictView, images: canvas.Images, views: Views = ONE
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Means over the sizes and mirror images of [B, H, W, 3] images in [-1, 1].

    Args:
        predict_view: of one view; masks are flipped and resized back.
        images: scaled to [-1, 1]; of a `Canvas`, each image is flipped and resized in its place.
        views: of each image.

    Returns:
        [B, H, W, 1] masks, and the scores; of several views also `DISAGREEMENT` [B], the mean absolute difference
        of a view's mask from the mean.

    Example:
        A network that always answers "the left half": with mirror images, the mean is 0.5 everywhere, and each view
        differs from it by 0.5.

        >>> import jax.numpy as jnp
        >>> from minmax_jax.training import views
        >>> def left_half(images):
        ...     return jnp.zeros((*images.shape[:3], 1)).at[:, :, : images.shape[2] // 2].set(1.0), {}
        >>> both = views.Views(flip_horizontal=True)
        >>> masks, scores = views.mean_over_views(left_half, jnp.zeros((1, 32, 32, 3)), both)
        >>> float(masks.min()), float(masks.max()), scores["view_disagreement"].tolist()
        (0.5, 0.5, [0.5])
    """
    foregrounds, scores = [], []
    pixels, sizes = canvas.split(images)
    full = pixels.shape[1:3]
    for scale in views.scales:
        resize_side = functools.partial(view_side, scale=scale)
        view_sizes = canvas.look_up(sizes, resize_side, full)
        resized = canvas.resize_to(pixels, tuple(map(resize_side, full)), sizes, view_sizes)
        of_flips, of_scale = _flipped_views(predict_view, resized, view_sizes, views)
        foregrounds += [canvas.resize_to(foreground, full, view_sizes, sizes) for foreground in of_flips]
        scores.append(of_scale)
    if len(foregrounds) == 1:
        return foregrounds[0], scores[0]
    stacked = jnp.stack(foregrounds)
    mean = jnp.mean(stacked, axis=0)
    scores = jax.tree.map(lambda *arrays: jnp.mean(jnp.stack(arrays), axis=0), *scores)
    differences = jnp.mean(jnp.abs(stacked - mean), axis=0)
    return mean, scores | {DISAGREEMENT: canvas.mean(differences, sizes)}


def view_side(side: int, scale: float) -> int:
    """The height or width at which an image is seen at a scale: a multiple of 32, unless the scale is 1."""
    return side if scale == 1 else max(1, round(scale * side / _GRID)) * _GRID


def _flipped_views(predict_view: PredictView, pixels: jax.Array, sizes: jax.Array | None, views: Views):
    """The masks of images [B, H, W, 3] and of their mirror images, flipped back, and the means of the scores."""
    both = views.flip_horizontal and views.flip_vertical
    flips = [(), *[(2,)] * views.flip_horizontal, *[(1,)] * views.flip_vertical, *[(1, 2)] * both]
    if len(flips) == 1:
        foreground, scores = predict_view(canvas.join(pixels, sizes))
        return [foreground], scores
    flipped = [canvas.flip(pixels, axes, sizes) for axes in flips]
    if _fit_in_one_batch(pixels.shape, len(flips)):
        # XLA then sees that two callers ask for the same features of a view, which it does not between two loops.
        all_sizes = None if sizes is None else jnp.tile(sizes, (len(flips), 1))
        foregrounds, scores = jax.tree.map(
            lambda array: array.reshape(len(flips), -1, *array.shape[1:]),
            predict_view(canvas.join(jnp.concatenate(flipped), all_sizes)),
        )
    else:  # A loop compiles the networks once and holds the activations of one view only.
        foregrounds, scores = lax.map(lambda view: predict_view(canvas.join(view, sizes)), jnp.stack(flipped))
    unflipped = [canvas.flip(masks_of_flip, axes, sizes) for masks_of_flip, axes in zip(foregrounds, flips)]
    return unflipped, jax.tree.map(lambda array: jnp.mean(array, axis=0), scores)


def _fit_in_one_batch(shape: tuple[free_sizes.Size, ...], num_flips: int) -> bool:
    """Whether the mirror images of [B, H, W, 3] images are predicted together."""
    return not any(map(free_sizes.is_free, shape)) and num_flips * math.prod(shape[:3]) <= _MAX_PIXELS
