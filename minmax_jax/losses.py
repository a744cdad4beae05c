"""The terms of the objective, one value per image: no reduction over the batch, except the mean in `area_loss`.

Entropies are in nats. Source: arXiv 1907.12934, section 3; the size terms: the follow-up on max-min uncertainty (IEEE
TMI 2022); `background_ratio`: BAS (Wu et al., CVPR 2022); `area_loss`: SAT (Wu et al., ICCV 2023).
"""

import dataclasses
import math

import jax
from jax import lax
import jax.numpy as jnp
import optax

from minmax_jax.base import options


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)_y: the localizer's loss, and the classifier's on the foreground.

    On the foreground it is an upper bound of the low conditional entropy that the method asks for there.

    Args:
        logits: [B, C].
        labels: [B] class of each image.

    Returns:
        [B] losses in nats.

    Example:
        Even odds cost log 2 = 0.69 nats, odds of 3 to 1 cost log(4 / 3) = 0.29.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> logits = jnp.log(jnp.array([[1.0, 1.0], [3.0, 1.0]]))
        >>> print(np.asarray(mm.losses.cross_entropy(logits, jnp.array([1, 0]))).round(2))
        [0.69 0.29]
    """
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]


def conditional_entropy(logits: jax.Array) -> jax.Array:
    """H = -sum_c p_c log p_c of p = softmax(logits).

    Args:
        logits: [B, C].

    Returns:
        [B] entropies in nats, in [0, log C].

    Example:
        log 2 = 0.69 where two classes are equally probable, and less where one is more probable.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> print(np.asarray(mm.losses.conditional_entropy(jnp.array([[0.0, 0.0], [2.0, 0.0]]))).round(2))
        [0.69 0.37]
    """
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)


def negative_entropy(logits: jax.Array) -> jax.Array:
    """-H(softmax(logits)): the background's high entropy, asked for explicitly.

    Its gradient vanishes where the classifier is confident; that of `uniform_cross_entropy` does not.

    Args:
        logits: [B, C].

    Returns:
        [B] losses in nats, in [-log C, 0].

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> print(np.asarray(mm.losses.negative_entropy(jnp.array([[0.0, 0.0], [2.0, 0.0]]))).round(2))
        [-0.69 -0.37]
    """
    return -conditional_entropy(logits)


def uniform_cross_entropy(logits: jax.Array) -> jax.Array:
    """-(1/C) sum_c log softmax(logits)_c: cross entropy from the uniform distribution.

    The published surrogate for the background's high entropy: its minimum, log C, is where all logits are equal.

    Args:
        logits: [B, C].

    Returns:
        [B] losses in nats, at least log C.

    Example:
        Minimum, log 2 = 0.69, where the logits are equal; it grows without bound with their difference.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> print(np.asarray(mm.losses.uniform_cross_entropy(jnp.array([[0.0, 0.0], [100.0, 0.0]]))).round(2))
        [ 0.69 50.  ]
    """
    return -jnp.mean(jax.nn.log_softmax(logits), axis=-1)


BACKGROUND_LOSSES = {"surrogate": uniform_cross_entropy, "explicit": negative_entropy}
RATIO = "ratio"  # the background term that needs more than the background's logits, `background_ratio`
BACKGROUND_GRADIENTS = ("all", "mask")


def background_ratio(background_logits: jax.Array, whole_logits: jax.Array, labels: jax.Array) -> jax.Array:
    """min(ReLU(s_y(background)) / (ReLU(s_y(whole image)) + 1e-8), 1), s_y the logit of the true class.

    The share of the class's activation that the masks leave in the background. Unlike an entropy it is bounded, and it
    asks for no particular answer: logits of 0 or less are as good as uniform ones. Its gradient is 0 where the
    background's logit is the greater. Source: background activation suppression, BAS (Wu et al., CVPR 2022), which
    trains the masks with it and not the classifier: `LossOptions.background_gradient` = "mask".

    Args:
        background_logits: [B, C] logits of the background.
        whole_logits: [B, C] logits of the whole image.
        labels: [B] classes.

    Returns:
        [B] shares in [0, 1].

    Example:
        The background has a quarter of the logit that the whole image has for its class, or a logit below 0.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> background, whole = jnp.array([[1.0, 9.0], [-1.0, 0.0]]), jnp.array([[4.0, 0.0], [4.0, 0.0]])
        >>> print(np.asarray(mm.losses.background_ratio(background, whole, jnp.array([0, 0]))).round(2))
        [0.25 0.  ]
    """
    background, whole = (
        jax.nn.relu(jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0])
        for logits in (background_logits, whole_logits)
    )
    # The classifier must not lower the ratio by a greater logit of whole images.
    return jnp.minimum(background / (lax.stop_gradient(whole) + 1e-8), 1.0)


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """Terms of the classifier and their weights; the group `loss` of a configuration.

    Attributes:
        background: "surrogate" (cross entropy from uniform, published), "explicit" (negative entropy) or "ratio"
            (`background_ratio`).
        background_weight: weight of the background term.
        background_gradient: what the background term trains: "all" (published), or the "mask" alone, by which the
            classifier cannot learn to answer "uniform" to any hole.
        whole_weight: weight of the classifier's cross entropy on whole images; 0 leaves it out. With `random_weight`,
            the classifier knows what a region without evidence looks like, and cannot read the class from the shape
            of a mask: REAL-X (Jethani et al., AISTATS 2021).
        random_weight: the same on images seen through random masks, `random_masks`.
        area_weight: weight of `area_loss`; 0 leaves it out.
        area_target: mean share of the image that masks cover.
        size_weight: weight of the size barrier; 0 leaves it out.
        size_bounds: minimum and maximum share of the image that the foreground covers; (0, 1) means unknown.
        barrier_t: steepness of the size barrier in the first epoch.
        barrier_factor: growth of the steepness per epoch.
        barrier_limit: maximum steepness.

    Raises:
        OptionError: for an unknown term or a number out of range.

    Example:
        >>> import minmax_jax as mm
        >>> mm.losses.LossOptions(background="explicit", background_weight=0.5).background
        'explicit'
        >>> mm.losses.LossOptions(background_weight=-1)
        Traceback (most recent call last):
        minmax_jax.base.errors.OptionError: background_weight=-1 must be at least 0.
    """

    background: str = "surrogate"
    background_weight: float = 1.0
    background_gradient: str = "all"
    whole_weight: float = 0.0
    random_weight: float = 0.0
    area_weight: float = 0.0
    area_target: float = 0.25
    size_weight: float = 0.0
    size_bounds: tuple[float, float] = (0.0, 1.0)
    barrier_t: float = 5.0
    barrier_factor: float = 1.01
    barrier_limit: float = 10.0

    def __post_init__(self):
        options.check_choice("background", self.background, (*BACKGROUND_LOSSES, RATIO))
        options.check_choice("background_gradient", self.background_gradient, BACKGROUND_GRADIENTS)
        options.check_ranges(
            self,
            background_weight=(0, math.inf),
            whole_weight=(0, math.inf),
            random_weight=(0, math.inf),
            area_weight=(0, math.inf),
            area_target=(0, 1),
            size_weight=(0, math.inf),
            barrier_t=(1e-6, math.inf),
            barrier_factor=(1e-6, math.inf),
            barrier_limit=(1e-6, math.inf),
        )
        options.check_numbers("size_bounds", self.size_bounds, 0, 1, count=2)
        minimum, maximum = self.size_bounds
        if minimum >= maximum:
            raise options.OptionError(f"size_bounds={self.size_bounds} must be a minimum and a larger maximum.")

    def steepness(self, epoch: jax.Array | int) -> jax.Array | float:
        """t of the size barrier in an epoch: barrier_t * barrier_factor^epoch, at most barrier_limit."""
        growth = optax.exponential_decay(
            self.barrier_t, 1, self.barrier_factor, staircase=True, end_value=self.barrier_limit
        )
        return growth(epoch)


def log_barrier(values: jax.Array, t: jax.Array | float) -> jax.Array:
    """psi_t(z): a penalty for z > 0, smooth and finite everywhere.

    -(1/t) log(-z) where z <= -1/t^2, else its tangent there, t z - (1/t) log(1/t^2) + 1/t.

    Args:
        values: z, to be kept below 0.
        t: steepness, above 0; the larger, the closer to a hard bound.

    Returns:
        Penalties of the shape of `values`.

    Example:
        -log(0.5) / 5 = 0.14 well below 0; above 0 the penalty grows by t = 5 with z.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> print(np.asarray(mm.losses.log_barrier(jnp.array([-0.5, 0.0, 1.0]), 5.0)).round(2))
        [0.14 0.84 5.84]
    """
    inside = values <= -1 / t**2
    # The branch that is not taken must be finite too, or its gradient turns the other's into NaN.
    negative = jnp.where(inside, values, -1.0)
    tangent = t * values - jnp.log(1 / t**2) / t + 1 / t
    return jnp.where(inside, -jnp.log(-negative) / t, tangent)


def size_barrier(masks: jax.Array, t: jax.Array | float, bounds: tuple[float, float] = (0.0, 1.0)) -> jax.Array:
    """Keeps foreground and background from vanishing, or the foreground's share within bounds.

    With unknown bounds (0, 1): psi_t(-S+) + psi_t(-S-) of the sizes in pixels, which pulls towards half the image.
    With bounds (a, b): psi_t(a - S+/|X|) + psi_t(S+/|X| - b).

    Args:
        masks: [B, H, W, 1] foreground masks in [0, 1].
        t: steepness of the barrier.
        bounds: minimum and maximum share of the image that the foreground covers; (0, 1) means unknown.

    Returns:
        [B] penalties.

    Example:
        A mask within the bounds, and one that covers the whole image, 0.5 more than it may.

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> masks = jnp.stack([jnp.full((4, 4, 1), 0.25), jnp.ones((4, 4, 1))])
        >>> print(np.asarray(mm.losses.size_barrier(masks, 10.0, (0.0, 0.5))).round(2))
        [0.28 5.56]
    """
    pixels = masks[0].size
    size = jnp.sum(masks, axis=(1, 2, 3))
    if tuple(bounds) == (0, 1):
        return log_barrier(-size, t) + log_barrier(size - pixels, t)
    minimum, maximum = bounds
    return log_barrier(minimum - size / pixels, t) + log_barrier(size / pixels - maximum, t)


def area_loss(
    masks: jax.Array, target: float, *, has_region: jax.Array | None = None, axis_name: str | None = None
) -> jax.Array:
    """|mean of all masks of the batch - target| + mean of m (1 - m) of each mask.

    The first part keeps the masks' area as a whole, and leaves open which image has a large object; the second pulls
    each pixel to 0 or 1. Source: batch area loss and normalization loss of SAT (Wu et al., ICCV 2023), where both have
    weight 1 and the target is 0.25.

    Args:
        masks: [B, H, W, 1] masks in [0, 1].
        target: mean share of the image that masks cover.
        has_region: [B] bool, the images whose masks count; None: all do.
        axis_name: mapped axis of the devices that share the batch, or None.

    Returns:
        [B] losses, the first part the same for all images; 0 where a mask does not count. Their mean over the devices
        has the gradient of the whole batch's loss.

    Example:
        Two hard masks whose mean area is the target cost nothing, whatever the area of each; a soft one costs
        m (1 - m).

        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> masks = jnp.stack([jnp.zeros((4, 4, 1)), jnp.ones((4, 4, 1))])
        >>> print(mm.losses.area_loss(masks, 0.5))
        [0. 0.]
        >>> print(mm.losses.area_loss(jnp.full((1, 4, 4, 1), 0.5), 0.5))
        [0.25]
    """
    areas = jnp.mean(masks, axis=(1, 2, 3))
    # A constant, so that no gradient passes an exchange between devices: each device's masks count by `areas` alone.
    if has_region is None:
        mean = lax.stop_gradient(jnp.mean(areas))
        mean = mean if axis_name is None else lax.pmean(mean, axis_name)
    else:
        parts = lax.stop_gradient(jnp.stack([jnp.mean(jnp.where(has_region, areas, 0)), jnp.mean(has_region)]))
        total, share = parts if axis_name is None else lax.pmean(parts, axis_name)
        mean = total / jnp.maximum(share, jnp.finfo(areas.dtype).tiny)
    deviation = jnp.abs(areas + lax.stop_gradient(mean - areas) - target)
    loss = deviation + jnp.mean(masks * (1 - masks), axis=(1, 2, 3))
    return loss if has_region is None else jnp.where(has_region, loss, 0)
