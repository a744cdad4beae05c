"""The training objective: its terms, their weights, and which gradient goes where."""

from collections.abc import Mapping
import dataclasses
import math
import types

import flax.struct
import jax
import jax.numpy as jnp

from minmax_jax import losses, masks
from minmax_jax.base import options
from minmax_jax.base.errors import OptionError
from minmax_jax.losses import LossOptions
from minmax_jax.masks import MaskOptions
from minmax_jax.minmax.erasing import ErasingOptions


@dataclasses.dataclass(frozen=True)
class Objective:
    """L = mean over the batch of L_loc + L+ + background_weight L- (+ further terms, each with its weight).

    Attributes:
        loss: terms of the classifier and their weights.
        mask: how class maps become masks.
        erasing: the recursive erasing.
        steps_per_epoch: unit of the options that change while training, such as `erasing.start_epoch`.
        background_classes: classes without a region, such as normal tissue: of their images, the whole image is the
            evidence, nothing is erased, and the background and size terms are 0.

    Raises:
        OptionError: for a term that trains the masks alone, where its gradient cannot reach them.

    Example:
        >>> import minmax_jax as mm
        >>> loss = mm.losses.LossOptions(size_weight=1.0)
        >>> objective = mm.Objective(loss=loss, mask=mm.masks.MaskOptions(gradient="flow"), steps_per_epoch=10)
        >>> objective.epoch(25)
        2
    """

    loss: LossOptions = dataclasses.field(default_factory=LossOptions)
    mask: MaskOptions = dataclasses.field(default_factory=MaskOptions)
    erasing: ErasingOptions = dataclasses.field(default_factory=ErasingOptions)
    steps_per_epoch: int = 1
    background_classes: tuple[int, ...] = ()

    def __post_init__(self):
        options.check_range("steps_per_epoch", self.steps_per_epoch, 1)
        options.check_numbers("background_classes", self.background_classes, 0, math.inf, whole=True)
        sizes, background = "the size of the masks is learned", "the background term trains the masks"
        for name, off, what in (
            ("size_weight", 0, sizes),
            ("area_weight", 0, sizes),
            ("background_gradient", "all", background),
        ):
            value = getattr(self.loss, name)
            if value != off and self.mask.gradient == "stop":
                raise OptionError(
                    f"loss.{name}={value!r} has no effect with mask.gradient='stop': {what} through their gradient."
                    f" Set mask.gradient='flow' or loss.{name}={off!r}."
                )

    def epoch(self, step: jax.Array | int) -> jax.Array | int:
        """The epoch, from 0, of a step."""
        return step // self.steps_per_epoch

    def inference_masks(
        self,
        logits: jax.Array,
        class_maps: jax.Array,
        size: tuple[int, int],
        *,
        num_steps: jax.Array | int,
        sizes: jax.Array | None = None,
    ) -> jax.Array:
        """Masks [B, H, W, 1] as in the last of the training steps, but for the other images: each is scaled by itself.

        Args:
            logits: [B, C] scores of the localizer.
            class_maps: [B, h, w, C] its class maps.
            size: (H, W) of the images.
            num_steps: completed training steps.
            sizes: [B, 2] of the images of a `Canvas`, as in `masks.foreground_masks`.
        """
        return masks.foreground_masks(
            logits,
            class_maps,
            size,
            options=dataclasses.replace(self.mask, normalization="image"),
            epoch=self.epoch(jnp.maximum(num_steps - 1, 0)),
            background_classes=self.background_classes,
            sizes=sizes,
        )

    def has_region(self, labels: jax.Array) -> jax.Array | None:
        """[B] bool, whether images of these classes [B] have a region; None where all classes have one."""
        return ~masks.is_background(labels, self.background_classes) if self.background_classes else None

    @property
    def views(self) -> tuple[str, ...]:
        """What the classifier reads besides foreground and background: "whole" images, or through "random" masks."""
        whole = self.loss.whole_weight != 0 or self.loss.background == losses.RATIO
        return ("whole",) * whole + ("random",) * (self.loss.random_weight != 0)

    @property
    def further_terms(self) -> tuple[str, ...]:
        """The names of `ClassifierTerms.further`."""
        return tuple(name for name in ("whole", "random", "area") if getattr(self.loss, f"{name}_weight") != 0)


@flax.struct.dataclass
class ClassifierTerms:
    """The classifier's terms of the objective, each [B], unweighted.

    Attributes:
        foreground: L+, cross entropy on the foreground.
        background: L-, the background term.
        size: the size barrier, or zeros.
        total: the weighted sum, which is minimised. Of images without a region, "background", "size" and "area" are 0.
        further: the optional terms that are used, by name: "whole" and "random", cross entropy on whole images and
            through random masks; "area", `losses.area_loss`.
    """

    foreground: jax.Array
    background: jax.Array
    size: jax.Array
    total: jax.Array
    further: dict[str, jax.Array]


def classifier_terms(
    foreground_logits: jax.Array,
    background_logits: jax.Array,
    foreground_masks: jax.Array,
    labels: jax.Array,
    *,
    objective: Objective,
    step: jax.Array | int,
    view_logits: Mapping[str, jax.Array] = types.MappingProxyType({}),
    axis_name: str | None = None,
) -> ClassifierTerms:
    """The terms of the classifier's passes. After erasing they are computed once, on the accumulated masks.

    Args:
        foreground_logits: [B, C] logits of the foreground.
        background_logits: [B, C] logits of the background.
        foreground_masks: [B, H, W, 1] masks that separate the two.
        labels: [B] classes.
        objective: weights and options.
        step: of the training, for the schedules.
        view_logits: [B, C] logits of each of `objective.views`.
        axis_name: mapped axis of the devices that share the batch, or None.
    """
    weights, has_region = objective.loss, objective.has_region(labels)
    foreground = losses.cross_entropy(foreground_logits, labels)
    if weights.background == losses.RATIO:
        background = losses.background_ratio(background_logits, view_logits["whole"], labels)
    else:
        background = losses.BACKGROUND_LOSSES[weights.background](background_logits)
    if has_region is not None:
        background = jnp.where(has_region, background, 0)
    total = foreground + weights.background_weight * background
    size = 0 * foreground
    if weights.size_weight != 0:
        steepness = weights.steepness(objective.epoch(step))
        size = losses.size_barrier(foreground_masks, steepness, weights.size_bounds)
        if has_region is not None:
            size = jnp.where(has_region, size, 0)
        total = total + weights.size_weight * size
    further = {}
    for name in objective.further_terms:
        if name == "area":
            further[name] = losses.area_loss(
                foreground_masks, weights.area_target, has_region=has_region, axis_name=axis_name
            )
        else:
            further[name] = losses.cross_entropy(view_logits[name], labels)
        total = total + getattr(weights, f"{name}_weight") * further[name]
    return ClassifierTerms(foreground=foreground, background=background, size=size, total=total, further=further)
