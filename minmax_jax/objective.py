"""The training objective: its terms, their weights, and which gradient goes where."""

import dataclasses

import flax.struct
import jax

from minmax_jax import losses
from minmax_jax.erasing import ErasingOptions
from minmax_jax.errors import OptionError
from minmax_jax.losses import LossOptions
from minmax_jax.masks import MaskOptions


@dataclasses.dataclass(frozen=True)
class Objective:
    """L = mean over the batch of L_loc + L+ + background_weight L- (+ size_weight size barrier).

    Attributes:
        loss: terms of the classifier and their weights.
        mask: how class maps become masks.
        erasing: the recursive erasing.
        steps_per_epoch: unit of the options that change while training, such as `erasing.start_epoch`.

    Raises:
        OptionError: for a size barrier on masks that its gradient cannot reach.
    """

    loss: LossOptions = dataclasses.field(default_factory=LossOptions)
    mask: MaskOptions = dataclasses.field(default_factory=MaskOptions)
    erasing: ErasingOptions = dataclasses.field(default_factory=ErasingOptions)
    steps_per_epoch: int = 1

    def __post_init__(self):
        if self.loss.size_weight != 0 and self.mask.gradient == "stop":
            raise OptionError(
                f"loss.size_weight={self.loss.size_weight} has no effect with mask.gradient='stop': the size of the"
                " masks is learned through their gradient. Set mask.gradient='flow' or loss.size_weight=0."
            )

    def epoch(self, step: jax.Array | int) -> jax.Array | int:
        """The epoch, from 0, of a step."""
        return step // self.steps_per_epoch


@flax.struct.dataclass
class ClassifierTerms:
    """The classifier's terms of the objective, each [B], unweighted.

    Attributes:
        foreground: L+, cross entropy on the foreground.
        background: L-, the background term.
        size: the size barrier, or zeros.
        total: the weighted sum, which is minimised.
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
    """The terms of the classifier's two passes.

    Args:
        foreground_logits: [B, C] scores of the foreground.
        background_logits: [B, C] scores of the background.
        foreground_masks: [B, H, W, 1] masks that separate the two.
        labels: [B] classes.
        objective: weights and options.
        step: of the training, for the schedules.
    """
    options = objective.loss
    foreground = losses.cross_entropy(foreground_logits, labels)
    background = losses.BACKGROUND_LOSSES[options.background](background_logits)
    total = foreground + options.background_weight * background
    size = 0 * foreground
    if options.size_weight != 0:
        steepness = options.steepness(objective.epoch(step))
        size = losses.size_barrier(foreground_masks, steepness, options.size_bounds)
        total = total + options.size_weight * size
    return ClassifierTerms(foreground=foreground, background=background, size=size, total=total)
