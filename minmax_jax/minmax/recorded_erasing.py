"""Recursive erasing pass by pass, for pictures: what each pass saw, what it found, and how far it was trusted."""

from collections.abc import Callable

import jax

from minmax_jax import losses
from minmax_jax.method import RecordedPass
from minmax_jax.minmax import erasing

# images -> ([B, C] logits, [B, H, W, 1] masks)
LocalizeFn = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def record(
    localize_fn: LocalizeFn, images: jax.Array, labels: jax.Array, *, num_erasures: int, decay: float
) -> list[RecordedPass]:
    """The passes of `erasing.erase` on images that have a region.

    All of them, also those that training would leave out because all trust is 0.

    Args:
        localize_fn: the localizer, not in training mode.
        images: [B, H, W, 3] X_0.
        labels: [B] classes.
        num_erasures: R, at least 1.
        decay: as in `erasing.ErasingOptions`.
    """
    state, passes = erasing.start(images, None), []
    for _ in range(num_erasures):
        logits, masks = localize_fn(state.images)
        found = erasing.LocalizerPass(logits=logits, masks=masks, batch_stats=None)
        _, following = erasing.one_pass(
            lambda *_, found=found: found, labels, num_erasures, decay, "trust", None, None, state
        )
        passes.append(
            RecordedPass(
                images=state.images,
                masks=masks,
                trust=following.loss_weights,
                losses=losses.cross_entropy(logits, labels),
            )
        )
        state = following
    return passes
