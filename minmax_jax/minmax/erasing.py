"""Recursive erasing: hide the region the localizer found, so that it finds the rest of the object.

Source: arXiv 1907.12934, section 3.3 and algorithm 1. Each pass reads the images as the previous passes left them, adds
its masks, weighted by trust, to the accumulated foreground, and hides that from the next pass.

Two forms of one recursion. `erase` takes the gradients inside the loop body and carries their sum: each pass is
differentiated by itself, so memory does not grow with the number of passes, and the loop stops as soon as no image is
left to erase. `erase_differentiably` lets a loss on the accumulated masks reach every pass.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax import losses as losses_lib
from minmax_jax.base import options

LOSS_WEIGHTS = ("one", "trust")


@dataclasses.dataclass(frozen=True)
class ErasingOptions:
    """The recursion; the group `erasing` of a configuration.

    Attributes:
        num_erasures: R, the maximum number of passes; 0 turns erasing off (published: 4).
        start_epoch: first epoch with erasing, counted from 0.
        decay: sigma_erase, in passes: pass r is trusted exp(-r / decay) times as much as the first.
        loss_weight: weight of the localizer's loss on erased images: "one" (published), or the "trust" that erased
            them.

    Raises:
        OptionError: for an unknown loss weight or a number out of range.

    Example:
        >>> import minmax_jax as mm
        >>> mm.erasing.ErasingOptions(num_erasures=4, loss_weight="trust").decay
        10.0
        >>> mm.erasing.ErasingOptions(loss_weight="twice")
        Traceback (most recent call last):
        minmax_jax.base.errors.OptionError: loss_weight='twice' must be one of ('one', 'trust').
    """

    num_erasures: int = 0
    start_epoch: int = 1
    decay: float = 10.0
    loss_weight: str = "one"

    def __post_init__(self):
        options.check_range("num_erasures", self.num_erasures, 0, 1000)
        options.check_range("start_epoch", self.start_epoch, 0)
        options.check_range("decay", self.decay, 1e-6)
        options.check_choice("loss_weight", self.loss_weight, LOSS_WEIGHTS)


@flax.struct.dataclass
class LocalizerPass:
    """Result of one pass of the localizer.

    Attributes:
        logits: [B, C].
        masks: [B, H, W, 1] foreground masks.
        batch_stats: the running statistics after the pass.
    """

    logits: jax.Array
    masks: jax.Array
    batch_stats: Any


@flax.struct.dataclass
class Erased:
    """The recursion before pass r, and in the end its result.

    Attributes:
        num_passes: r.
        images: [B, H, W, 3] X_r, the images with the foreground so far set to 0.
        masks: [B, H, W, 1] P, the accumulated foreground.
        losses: [B] sum over the passes of weight times l_r.
        loss_weights: [B] weights of the next pass's losses.
        first_losses: [B] l_0.
        first_correct: [B] whether the class predicted for the whole image is correct.
        history: [B] h, whether all predicted classes so far are correct.
        batch_stats: the running statistics.
        unfinished: whether another pass follows, the same on all devices.
    """

    num_passes: jax.Array
    images: jax.Array
    masks: jax.Array
    losses: jax.Array
    loss_weights: jax.Array
    first_losses: jax.Array
    first_correct: jax.Array
    history: jax.Array
    batch_stats: Any
    unfinished: jax.Array


# (params, images, batch_stats, r) -> LocalizerPass
PassFn = Callable[[Any, jax.Array, Any, jax.Array], LocalizerPass]


def erase(
    pass_fn: PassFn,
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    batch_stats: Any,
    *,
    num_erasures: jax.Array | int,
    decay: float = 10.0,
    loss_weight: str = "one",
    has_region: jax.Array | None = None,
    axis_name: str | None = None,
) -> tuple[Erased, Any]:
    """Erases recursively; gradients of the localizer's loss alone, summed over the passes.

    Args:
        pass_fn: one pass of the localizer.
        params: parameters that the gradients refer to.
        images: [B, H, W, 3] X_0.
        labels: [B] classes.
        batch_stats: running statistics, passed from pass to pass.
        num_erasures: R, the number of passes; 0 means one pass whose mask is used unweighted. May be traced, so that
            a schedule needs no second compilation.
        decay: as in `ErasingOptions`.
        loss_weight: as in `ErasingOptions`; with "trust", an image from which nothing was erased counts once.
        has_region: [B] bool; from an image without a region nothing is erased, and its loss is that of the first pass
            alone. None: all have one.
        axis_name: mapped axis of the devices that share a batch; all continue as long as one has an image to erase.

    Returns:
        The result, and the gradients of mean(losses) to `params`.

    Example:
        A localizer that is certain of class 0 and finds the brightest pixel. Its second pass finds the second
        brightest, which is trusted exp(-1 / 10) = 0.9 times as much.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> def find_brightest(params, images, batch_stats, r):
        ...     masks = jnp.where(images == images.max(), 1.0, 0.0)
        ...     return mm.erasing.LocalizerPass(params * jnp.array([[9.0, 0.0]]), masks, batch_stats)
        >>> images, labels = jnp.array([0.2, 0.9, 0.6]).reshape(1, 1, 3, 1), jnp.array([0])
        >>> erased, gradients = mm.erasing.erase(find_brightest, 2.0, images, labels, {}, num_erasures=2)
        >>> print(np.asarray(erased.masks[0, 0, :, 0]).round(1), erased.num_passes)
        [0.  1.  0.9] 2
    """
    one_pass_fn = functools.partial(
        one_pass, pass_fn, labels, num_erasures, decay, loss_weight, axis_name, has_region=has_region
    )

    def body(carry):
        state, gradients = carry
        pass_gradients, state = jax.grad(one_pass_fn, has_aux=True)(params, state)
        return state, jax.tree.map(jnp.add, gradients, pass_gradients)

    carry = start(images, batch_stats), jax.tree.map(jnp.zeros_like, params)
    # The loop is used for a single pass as well: XLA then frees its activations before the classifier runs.
    return lax.while_loop(lambda carry: carry[0].unfinished, body, carry)


def erase_differentiably(
    pass_fn: PassFn,
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    batch_stats: Any,
    *,
    max_erasures: int,
    num_erasures: jax.Array | int,
    decay: float = 10.0,
    loss_weight: str = "one",
    has_region: jax.Array | None = None,
    axis_name: str | None = None,
) -> Erased:
    """Erases recursively so that `masks` and `losses` of the result can be differentiated to `params`.

    A scan whose passes are rematerialised in the backward pass: memory grows by one image and mask per pass, not by the
    activations of a pass. Arguments as in `erase`, and `max_erasures`, the highest value of `num_erasures`.

    Args:
        pass_fn: as in `erase`.
        params: as in `erase`.
        images: as in `erase`.
        labels: as in `erase`.
        batch_stats: as in `erase`.
        max_erasures: the highest value of `num_erasures`, the length of the scan.
        num_erasures: as in `erase`.
        decay: as in `erase`.
        loss_weight: as in `erase`.
        has_region: as in `erase`.
        axis_name: as in `erase`.

    Returns:
        The result.

    Example:
        The masks follow the parameter, here their steepness: `erase` gives the gradient of the losses alone.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> def brighten(steepness, images, batch_stats, r):
        ...     masks = jax.nn.sigmoid(steepness * images)
        ...     return mm.erasing.LocalizerPass(jnp.array([[9.0, 0.0]]), masks, batch_stats)
        >>> def area(steepness):
        ...     images, labels = jnp.ones((1, 1, 1, 1)), jnp.array([0])
        ...     options = dict(max_erasures=1, num_erasures=1)
        ...     return mm.erasing.erase_differentiably(brighten, steepness, images, labels, {}, **options).masks.sum()
        >>> round(float(jax.grad(area)(0.0)), 2)  # the derivative of a sigmoid at 0
        0.25
    """
    one_pass_fn = functools.partial(
        one_pass, pass_fn, labels, num_erasures, decay, loss_weight, axis_name, has_region=has_region
    )

    def pass_if_unfinished(state, _):
        _, following = one_pass_fn(params, state)
        return jax.tree.map(functools.partial(jnp.where, state.unfinished), following, state), None

    state = start(images, batch_stats)
    if max_erasures == 0:
        return one_pass_fn(params, state)[1]
    return lax.scan(jax.checkpoint(pass_if_unfinished), state, length=max_erasures)[0]


def start(images: jax.Array, batch_stats: Any) -> Erased:
    """The recursion before its first pass.

    Example:
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> before = mm.erasing.start(jnp.ones((2, 4, 4, 3)), {})
        >>> before.masks.shape, int(before.num_passes), bool(before.unfinished)
        ((2, 4, 4, 1), 0, True)
    """
    batch = images.shape[0]
    return Erased(
        num_passes=jnp.int32(0),
        images=images,
        masks=jnp.zeros((*images.shape[:-1], 1), images.dtype),
        losses=jnp.zeros(batch),
        loss_weights=jnp.ones(batch),
        first_losses=jnp.zeros(batch),
        first_correct=jnp.ones(batch, bool),
        history=jnp.ones(batch, bool),
        batch_stats=batch_stats,
        unfinished=jnp.bool_(True),
    )


def one_pass(
    pass_fn, labels, num_erasures, decay, loss_weight, axis_name, params, state: Erased, *, has_region=None
) -> tuple[jax.Array, Erased]:
    """One pass of the recursion.

    Args:
        pass_fn: as in `erase`.
        labels: as in `erase`.
        num_erasures: as in `erase`.
        decay: as in `erase`.
        loss_weight: as in `erase`.
        axis_name: as in `erase`.
        params: as in `erase`.
        state: the recursion before pass r.
        has_region: as in `erase`.

    Returns:
        The mean weighted loss of pass r, and the recursion before pass r + 1.

    Example:
        A first pass that is unsure, with even odds: the mask of ones is trusted by one half.

        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> def find_all(params, images, batch_stats, r):
        ...     return mm.erasing.LocalizerPass(jnp.zeros((1, 2)), jnp.ones((1, 2, 2, 1)), batch_stats)
        >>> state = mm.erasing.start(jnp.ones((1, 2, 2, 3)), {})
        >>> loss, state = mm.erasing.one_pass(find_all, jnp.array([0]), 2, 10.0, "one", None, {}, state)
        >>> round(float(loss), 2), float(state.masks.mean()), float(state.images.mean())
        (0.69, 0.5, 0.5)
    """
    result = pass_fn(params, state.images, state.batch_stats, state.num_passes)
    losses = losses_lib.cross_entropy(result.logits, labels)
    correct = jnp.argmax(result.logits, axis=-1) == labels
    is_first = state.num_passes == 0
    first_losses = jnp.where(is_first, losses, state.first_losses)
    history = state.history & correct
    trust = _trust(result.logits, state.num_passes, decay)
    trust = jnp.where(history & (losses <= first_losses), trust, 0.0)
    trust = jnp.where(num_erasures == 0, 1.0, trust)
    masks = jnp.maximum(state.masks, trust[:, None, None, None] * result.masks)
    erased = jnp.where(trust[:, None, None, None] > 0, state.images * (1 - masks), state.images)
    loss_weights = trust.astype(state.loss_weights.dtype) if loss_weight == "trust" else state.loss_weights
    if has_region is not None:
        erased = jnp.where(has_region[:, None, None, None], erased, state.images)
        history &= has_region
        loss_weights = jnp.where(has_region, loss_weights, 0)
    unfinished = jnp.any(history) & (state.num_passes + 1 < num_erasures)
    if axis_name is not None:
        unfinished = lax.pmax(unfinished.astype(jnp.int32), axis_name) > 0
    weighted = state.loss_weights * losses
    return jnp.mean(weighted), Erased(
        num_passes=state.num_passes + 1,
        # The next pass must not teach this one's localizer which pixels to leave.
        images=lax.stop_gradient(erased),
        masks=masks,
        losses=state.losses + weighted,
        loss_weights=loss_weights,
        first_losses=first_losses,
        first_correct=jnp.where(is_first, correct, state.first_correct),
        history=history,
        batch_stats=result.batch_stats,
        unfinished=unfinished,
    )


def _trust(logits: jax.Array, num_passes: jax.Array, decay: float) -> jax.Array:
    """[B] exp(-r / decay) times the confidence in the predicted class."""
    confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
    # The localizer must not lower the classifier's loss by reducing its own confidence.
    return lax.stop_gradient(jnp.exp(-num_passes / decay) * confidence)
