"""The terms of the objective, one value an image, in nats. Nothing here is reduced over the batch.

Source: arXiv 1907.12934, section 3; the size terms: the follow-up on max-min uncertainty (IEEE TMI 2022).
"""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)_y: the localizer's loss, and the classifier's on the foreground.

    On the foreground it is an upper bound of the low conditional entropy that the method asks for there.

    Args:
        logits: [B, C] scores.
        labels: [B] class of each image.

    Returns:
        [B] losses in nats.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]


def conditional_entropy(logits: jax.Array) -> jax.Array:
    """H = -sum_c p_c log p_c of p = softmax(logits).

    Args:
        logits: [B, C] scores.

    Returns:
        [B] entropies in nats, in [0, log C].
    """
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)


def negative_entropy(logits: jax.Array) -> jax.Array:
    """-H(softmax(logits)): the background's high entropy, asked for explicitly.

    Its gradient vanishes where the classifier is confident; that of `uniform_cross_entropy` does not.

    Args:
        logits: [B, C] scores.

    Returns:
        [B] losses in nats, in [-log C, 0].
    """
    return -conditional_entropy(logits)


def uniform_cross_entropy(logits: jax.Array) -> jax.Array:
    """-(1/C) sum_c log softmax(logits)_c: cross entropy from the uniform distribution.

    The published surrogate for the background's high entropy: least, log C, where all scores are equal.

    Args:
        logits: [B, C] scores.

    Returns:
        [B] losses in nats, at least log C.
    """
    return -jnp.mean(jax.nn.log_softmax(logits), axis=-1)


BACKGROUND_LOSSES = {"surrogate": uniform_cross_entropy, "explicit": negative_entropy}


def log_barrier(values: jax.Array, t: jax.Array | float) -> jax.Array:
    """psi_t(z): a penalty for z > 0, smooth and finite everywhere.

    -(1/t) log(-z) where z <= -1/t^2, else its tangent there, t z - (1/t) log(1/t^2) + 1/t.

    Args:
        values: z, to be kept below 0.
        t: steepness, above 0; the larger, the closer to a hard bound.

    Returns:
        Penalties of the shape of `values`.
    """
    inside = values <= -1 / t**2
    # The branch that is not taken must be finite too, or its gradient turns the other's into NaN.
    negative = jnp.where(inside, values, -1.0)
    tangent = t * values - jnp.log(1 / t**2) / t + 1 / t
    return jnp.where(inside, -jnp.log(-negative) / t, tangent)


def size_barrier(masks: jax.Array, t: jax.Array | float, bounds: tuple[float, float] | None = None) -> jax.Array:
    """Keeps foreground and background from vanishing, or the foreground's share within bounds.

    Without bounds psi_t(-S+) + psi_t(-S-) of the sizes in pixels, in effect a pull towards half the image;
    with bounds (a, b) psi_t(a - S+/|X|) + psi_t(S+/|X| - b).

    Args:
        masks: [B, H, W, 1] foreground masks in [0, 1].
        t: steepness of the barrier.
        bounds: least and greatest share of the image that the foreground takes, if they are known.

    Returns:
        [B] penalties.
    """
    pixels = masks[0].size
    size = jnp.sum(masks, axis=(1, 2, 3))
    if bounds is None:
        return log_barrier(-size, t) + log_barrier(size - pixels, t)
    least, greatest = bounds
    return log_barrier(least - size / pixels, t) + log_barrier(size / pixels - greatest, t)
