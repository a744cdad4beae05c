"""The training objective: its terms, their weights, and which gradient goes where."""

import dataclasses

import flax.struct
import jax

from minmax_jax import erasing, losses, masks, schedules


@dataclasses.dataclass(frozen=True)
class Objective:
    """L = mean over the batch of L_loc + L+ + background_weight L- (+ size_weight size barrier).

    Values that may change while training are constants or schedules over steps.

    Attributes:
        background_loss: "surrogate" (cross entropy from uniform, published) or "explicit" (negative entropy).
        background_weight: of the background's term; constant or schedule.
        size_weight: of the size barrier; 0 leaves it out.
        size_bounds: (least, greatest) share of the image that the foreground takes, or None if unknown.
        barrier_t: steepness of the size barrier; constant or schedule.
        sigma: threshold of the masks; constant or schedule.
        omega: steepness of the masks.
        mask_normalization: "image" or "batch" (published), as in `masks.foreground_masks`.
        mask_gradient: "stop" (published) or "flow", as in `masks.foreground_masks`.
        mask_alignment: "corners" (published) or "features", as in `masks.foreground_masks`.
        num_erasures: R, passes of the recursive erasing; 0 turns it off.
        erasing_start: step from which on images are erased.
        erasing_decay: sigma_erase, as `decay` in `erasing.erase`.
        erased_loss_weight: "one" (published) or "trust", as `loss_weight` in `erasing.erase`.

    Raises:
        ValueError: for an unknown option, or a size barrier on masks that it cannot reach.
    """

    background_loss: str = "surrogate"
    background_weight: schedules.Schedule | float = 1.0
    size_weight: float = 0.0
    size_bounds: tuple[float, float] | None = None
    barrier_t: schedules.Schedule | float = 5.0
    sigma: schedules.Schedule | float = 0.5
    omega: float = 8.0
    mask_normalization: str = "image"
    mask_gradient: str = "stop"
    mask_alignment: str = "corners"
    num_erasures: int = 0
    erasing_start: int = 0
    erasing_decay: float = 10.0
    erased_loss_weight: str = "one"

    def __post_init__(self):
        for field, choices in (
            ("background_loss", tuple(losses.BACKGROUND_LOSSES)),
            ("mask_normalization", masks.NORMALIZATIONS),
            ("mask_gradient", masks.GRADIENTS),
            ("mask_alignment", masks.ALIGNMENTS),
            ("erased_loss_weight", erasing.LOSS_WEIGHTS),
        ):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field}={getattr(self, field)!r} must be one of {choices}.")
        if self.num_erasures < 0 or self.erasing_decay <= 0:
            raise ValueError(
                f"num_erasures={self.num_erasures} must be at least 0, erasing_decay={self.erasing_decay} above 0."
            )
        if self.size_weight != 0 and self.mask_gradient == "stop":
            raise ValueError(
                f"size_weight={self.size_weight} has no effect with mask_gradient='stop': the size of the"
                " masks is learnt through their gradient. Set mask_gradient='flow', or size_weight=0."
            )
        if self.size_bounds is not None and not 0 <= self.size_bounds[0] < self.size_bounds[1] <= 1:
            raise ValueError(f"size_bounds={self.size_bounds} must be two shares, 0 <= least < greatest <= 1.")


@flax.struct.dataclass
class ClassifierTerms:
    """The classifier's terms of the objective, each [B], unweighted.

    Attributes:
        foreground: L+, cross entropy on the foreground.
        background: L-, the background's term.
        size: the size barrier, or zeros.
        total: what is minimised: the weighted sum.
    """

    foreground: jax.Array
    background: jax.Array
    size: jax.Array
    total: jax.Array


def classifier_terms(
    foreground_logits: jax.Array,
    background_logits: jax.Array,
    foreground_masks: jax.Array,
    labels: jax.Array,
    *,
    objective: Objective,
    step: jax.Array | int,
) -> ClassifierTerms:
    """The terms of the two classifier passes.

    Args:
        foreground_logits: [B, C] scores of the foreground.
        background_logits: [B, C] scores of the background.
        foreground_masks: [B, H, W, 1] masks that parted the two.
        labels: [B] classes.
        objective: weights and options.
        step: for the schedules.
    """
    foreground = losses.cross_entropy(foreground_logits, labels)
    background = losses.BACKGROUND_LOSSES[objective.background_loss](background_logits)
    total = foreground + schedules.at(objective.background_weight, step) * background
    size = 0 * foreground
    if objective.size_weight != 0:
        barrier_t = schedules.at(objective.barrier_t, step)
        size = losses.size_barrier(foreground_masks, barrier_t, objective.size_bounds)
        total = total + objective.size_weight * size
    return ClassifierTerms(foreground=foreground, background=background, size=size, total=total)
