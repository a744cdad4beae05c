"""Recursive erasing: hide what the localizer found, so that it finds the rest of the object.

Source: arXiv 1907.12934, section 3.3 and algorithm 1. Each pass looks at the images as the passes before left
them, adds its masks, weighted by trust, to the accumulated foreground, and hides that from the next pass.

Two forms of one recursion. `erase` takes the gradients inside the loop body and carries their sum: each pass is
differentiated by itself, so memory is that of one pass however many there are, and the loop really stops when
no image is left to erase. `erase_differentiably` lets a loss on the accumulated masks reach every pass.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax import losses as losses_lib

LOSS_WEIGHTS = ("one", "trust")


@flax.struct.dataclass
class LocalizerPass:
    """What one pass of the localizer returns.

    Attributes:
        logits: [B, C] scores.
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
        images: [B, H, W, 3] X_r, the images with what was found so far set to 0.
        masks: [B, H, W, 1] P, the accumulated foreground.
        losses: [B] sum over the passes of weight times l_r.
        loss_weights: [B] weights of the next pass's losses.
        first_losses: [B] l_0.
        first_correct: [B] whether the class of the whole image was right.
        history: [B] h, whether all classes so far were right.
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
    axis_name: str | None = None,
) -> tuple[Erased, Any]:
    """Erases recursively; gradients of the localizer's loss alone, summed over the passes.

    Args:
        pass_fn: one pass of the localizer.
        params: what is differentiated.
        images: [B, H, W, 3] X_0.
        labels: [B] classes.
        batch_stats: running statistics, handed from pass to pass.
        num_erasures: R, the number of passes; 0 is one pass whose mask is taken as it is. May be traced, so that
            a schedule needs no second compilation.
        decay: sigma_erase; pass r is trusted exp(-r / decay) times as much as the first.
        loss_weight: of the localizer's loss on erased images: "one" (published), or the "trust" that erased
            them, so that an image from which nothing was erased counts once.
        axis_name: mapped axis of the devices that share a batch; they all go on as long as one has to.

    Returns:
        The result, and the gradients of mean(losses) to `params`.
    """
    one_pass = functools.partial(_one_pass, pass_fn, labels, num_erasures, decay, loss_weight, axis_name)

    def body(carry):
        state, gradients = carry
        pass_gradients, state = jax.grad(one_pass, has_aux=True)(params, state)
        return state, jax.tree.map(jnp.add, gradients, pass_gradients)

    carry = _start(images, batch_stats), jax.tree.map(jnp.zeros_like, params)
    # Also for a single pass: what comes after the loop then takes the memory that the pass has left.
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
    axis_name: str | None = None,
) -> Erased:
    """Erases recursively so that `masks` and `losses` of the result can be differentiated to `params`.

    A scan whose passes are computed again on the way back: memory grows by one image and mask a pass, not by
    one pass's activations. Arguments as in `erase`, and `max_erasures`, the most that `num_erasures` can be.
    """
    one_pass = functools.partial(_one_pass, pass_fn, labels, num_erasures, decay, loss_weight, axis_name)

    def pass_if_unfinished(state, _):
        _, following = one_pass(params, state)
        return jax.tree.map(functools.partial(jnp.where, state.unfinished), following, state), None

    state = _start(images, batch_stats)
    if max_erasures == 0:
        return one_pass(params, state)[1]
    return lax.scan(jax.checkpoint(pass_if_unfinished), state, length=max_erasures)[0]


def _start(images: jax.Array, batch_stats: Any) -> Erased:
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


def _one_pass(pass_fn, labels, num_erasures, decay, loss_weight, axis_name, params, state: Erased):
    """(mean weighted loss of pass r, state before pass r + 1)."""
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
    unfinished = jnp.any(history) & (state.num_passes + 1 < num_erasures)
    if axis_name is not None:
        unfinished = lax.pmax(unfinished.astype(jnp.int32), axis_name) > 0
    weighted = state.loss_weights * losses
    return jnp.mean(weighted), Erased(
        num_passes=state.num_passes + 1,
        # The next pass must read what is left, not teach this one what to leave.
        images=lax.stop_gradient(erased),
        masks=masks,
        losses=state.losses + weighted,
        loss_weights=trust if loss_weight == "trust" else state.loss_weights,
        first_losses=first_losses,
        first_correct=jnp.where(is_first, correct, state.first_correct),
        history=history,
        batch_stats=result.batch_stats,
        unfinished=unfinished,
    )


def _trust(logits: jax.Array, num_passes: jax.Array, decay: float) -> jax.Array:
    """[B] exp(-r / decay) times the confidence in the predicted class."""
    confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
    # A constant: the classifier's loss must not be lowered by doubting a mask.
    return lax.stop_gradient(jnp.exp(-num_passes / decay) * confidence)
