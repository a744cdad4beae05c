"""The decoder's training: cross entropy on the seeds alone, and the pairwise term."""

from collections.abc import Iterator
import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from minmax_jax.base import progress
from minmax_jax.base.errors import OptionError
from minmax_jax.models import decoder as decoder_lib
from minmax_jax.ops import canvas
from minmax_jax.refinement import edges, seeds
from minmax_jax.refinement.cache import Group
from minmax_jax.refinement.options import RefineOptions

logger = logging.getLogger(__name__)

# Seed losses in nats; of a mask of 0.5 everywhere it is log 2 = 0.69.
_COLLAPSED, _HOPELESS = 0.62, 0.685
_CHECKED_STEPS = 50
_MIN_WEIGHT = 1.0
_BATCH_SIZE = 8  # images
_LEARNING_RATE = 3e-3  # of the first step; it falls along a cosine to 0
_NUM_SEEDS = 20  # pixels of the foreground in each image and step, and as many of the background
_EDGE_BANDWIDTH = 0.02  # squared distance of colours in [0, 1] at which a mask may change
_EDGE_REACH = 4  # pixels of the mask, at half the image's size, between the two of a pair


def train(groups: list[Group], *, decoder: decoder_lib.Decoder, options: RefineOptions, seed: int) -> tuple[Any, float]:
    """Trains a decoder.

    A pairwise term of too great a weight presses all values of a mask to one. No mask is needed to see that: the seeds
    are not separated. The decoder is then trained again with half the weight.

    Args:
        groups: as of `collect`.
        decoder: the network.
        options: of the second stage.
        seed: of parameters, images and seeds.

    Returns:
        Its parameters, and the weight of the pairwise term that they were trained with.

    Raises:
        OptionError: if a loss or a parameter is no number, whatever the weight.
    """
    while True:
        params, terms = _train_once(groups, decoder, options, seed)
        described = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
        logger.info("Second stage, last step: %s.", described)
        # What is no number is worse than any: it must not pass for a loss that is low enough.
        is_finite = all(np.isfinite(values).all() for values in jax.tree.leaves((terms, params)))
        if is_finite and (terms["seed_loss"] <= _COLLAPSED or options.edge_weight < _MIN_WEIGHT):
            return params, options.edge_weight
        if not is_finite and options.edge_weight < _MIN_WEIGHT:
            raise OptionError(
                f"edge_weight={options.edge_weight}: the second stage diverged ({described}), with greater weights as"
                " well. The run is complete without it: set enabled=False."
            )
        options = dataclasses.replace(options, edge_weight=options.edge_weight / 2)
        logger.warning(
            "%s: it is trained again with half the weight of the pairwise term, config.refine.edge_weight=%g.",
            "Its masks are nearly constant (of such, seed_loss is 0.69)" if is_finite else "It diverged",
            options.edge_weight,
        )


def _train_once(
    groups: list[Group], decoder: decoder_lib.Decoder, options: RefineOptions, seed: int
) -> tuple[Any, dict[str, float]]:
    """Parameters, and the terms of the last step; ends early where masks stay constant."""
    seed_losses = []
    with progress.meter("Second stage", total=options.num_steps, unit="step") as update:
        for index, last in enumerate(steps(groups, decoder=decoder, options=options, seed=seed)):
            seed_losses.append(last[1]["seed_loss"])
            update(1)
            is_checked = index >= 2 * _CHECKED_STEPS and index % _CHECKED_STEPS == 0
            if is_checked and not np.mean(jax.device_get(seed_losses[-_CHECKED_STEPS:])) <= _HOPELESS:
                break
    params, terms = jax.device_get(last)
    return params, {name: float(value) for name, value in terms.items()}


def steps(
    groups: list[Group], *, decoder: decoder_lib.Decoder, options: RefineOptions, seed: int
) -> Iterator[tuple[Any, dict[str, jax.Array]]]:
    """One training of a decoder, step by step.

    Args:
        groups: as of `train`.
        decoder: as of `train`.
        options: as of `train`.
        seed: as of `train`.

    Yields:
        The parameters after each step, which the next one overwrites, and the terms of its loss.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([len(group.images) for group in groups])
    params = _init(decoder, groups[0], seed)
    tx = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, options.num_steps))
    opt_state = tx.init(params)
    step = jax.jit(functools.partial(_train_step, decoder=decoder, tx=tx, options=options), donate_argnums=(0, 1))
    for _ in range(options.num_steps):
        group = groups[rng.choice(len(groups), p=sizes / sizes.sum())]
        params, opt_state, terms = step(params, opt_state, _draw_batch(group, rng))
        yield params, terms


def _init(decoder: decoder_lib.Decoder, group: Group, seed: int) -> Any:
    stages = {stride: features[:1] for stride, features in group.stages.items()}
    return decoder.init(jax.random.key(seed), stages, canvas.normalize(jnp.asarray(group.images[:1])))["params"]


def _draw_batch(group: Group, rng: np.random.Generator) -> dict[str, Any]:
    count = len(group.images)
    chosen = rng.choice(count, _BATCH_SIZE, replace=count < _BATCH_SIZE)
    sizes = None if group.sizes is None else group.sizes[chosen]
    return {
        "images": canvas.join(group.images[chosen], sizes),
        "stages": {stride: features[chosen] for stride, features in group.stages.items()},
        "foreground": seeds.draw(group.foreground[chosen], rng, count=_NUM_SEEDS),
        "background": seeds.draw(group.background[chosen], rng, count=_NUM_SEEDS),
    }


def _train_step(params, opt_state, batch, *, decoder, tx, options: RefineOptions):
    images = canvas.normalize(batch["images"])
    pixels, sizes = canvas.split(images)
    colors, half_sizes = (decoder_lib.halve(pixels) + 1) / 2, canvas.at_stride(sizes, decoder_lib.STRIDE)

    def loss_fn(params):
        logits = decoder.apply({"params": params}, batch["stages"], images)[..., 0]
        on_seeds = jnp.mean(partial_cross_entropy(logits, batch["foreground"], batch["background"]))
        changes = edges.edge_loss(
            jax.nn.sigmoid(logits), colors, bandwidth=_EDGE_BANDWIDTH, reach=_EDGE_REACH, sizes=half_sizes
        )
        pairwise = jnp.mean(changes)
        return on_seeds + options.edge_weight * pairwise, {"seed_loss": on_seeds, "edge_loss": pairwise}

    gradients, terms = jax.grad(loss_fn, has_aux=True)(params)
    updates, opt_state = tx.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, terms


def partial_cross_entropy(logits: jax.Array, foreground: jax.Array, background: jax.Array) -> jax.Array:
    """Binary cross entropy on the seeds alone, both groups with the same weight.

    Args:
        logits: [B, h, w] of the foreground.
        foreground: [B, n] seeds, pixels counted along the rows.
        background: [B, m] seeds.

    Returns:
        [B] losses in nats.
    """
    logits = logits.reshape(len(logits), -1)
    of_foreground = jax.nn.softplus(-jnp.take_along_axis(logits, foreground, axis=1))
    of_background = jax.nn.softplus(jnp.take_along_axis(logits, background, axis=1))
    return (jnp.mean(of_foreground, axis=1) + jnp.mean(of_background, axis=1)) / 2
