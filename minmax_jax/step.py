"""One step of training: the only place where networks, losses and erasing meet.

It knows nothing of devices but the name of a mapped axis, and runs under plain Python, jit and pmap alike.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from minmax_jax import batch_stats as batch_stats_lib
from minmax_jax import erasing, losses, masks, microbatches, schedules
from minmax_jax import objective as objective_lib
from minmax_jax.models import minmax_net
from minmax_jax.ops import device_means, intensity
from minmax_jax.state import TrainState

# Which randomness a pass draws from: the classifier's two, then the localizer's, one an erasure.
_FOREGROUND_DRAW, _BACKGROUND_DRAW, _FIRST_LOCALIZER_DRAW = range(3)


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: minmax_net.MinMaxNet,
    tx: optax.GradientTransformation,
    objective: objective_lib.Objective,
    accumulation: int = 1,
    average_decay: float = 0.0,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates the state by one batch.

    Args:
        state: the state before.
        batch: "images" [B, H, W, 3], uint8 or scaled to [-1, 1], and "labels" [B]; on each device its share.
        model: the networks.
        tx: the optimizer.
        objective: what to minimise.
        accumulation: number of micro-batches that the batch (on each device its share) is cut into; the networks
            run on one after another, see `minmax_jax.microbatches`. Batch norm normalizes each by itself, and its
            running statistics take in the mean over them, as over devices.
        average_decay: share of the average that a step leaves as it was, where the state keeps an average; less in
            the first steps, so that it forgets the random start.
        axis_name: mapped axis of the devices that share the batch, or None.

    Returns:
        The state after, and means over the whole batch: "loss" and its terms "localizer_loss" (summed over the
        passes), "foreground_loss", "background_loss", "size_loss"; "foreground_entropy" and "background_entropy" in
        nats; "classification_error" and "localizer_classification_error" in percent; "foreground_share" of the
        pixels; also "num_passes" of the localizer and "gradient_norm".

    Raises:
        ValueError: if the batch cannot be cut evenly.
    """
    if len(batch["labels"]) % accumulation:
        raise ValueError(f"{len(batch['labels'])} images a device must be a multiple of accumulation={accumulation}.")
    given = _Given(
        images=intensity.normalize(batch["images"]),
        labels=batch["labels"],
        sample_keys=_sample_keys(state, len(batch["labels"]), axis_name),
        step=state.step,
        apply=jax.jit(functools.partial(_apply, model), static_argnames="method"),
        objective=objective,
        accumulation=accumulation,
        axis_name=axis_name,
    )
    differentiate = _separate_gradients if objective.mask_gradient == "stop" else _joint_gradients
    gradients, (erased, sides) = differentiate(given, state)
    batch_stats, metrics = sides.batch_stats, _metrics(given, erased, sides)
    if axis_name is not None:
        gradients, batch_stats, metrics = device_means.device_means((gradients, batch_stats, metrics), axis_name)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
    return _update_average(state, average_decay), metrics


@dataclasses.dataclass(frozen=True)
class _Given:
    """What all passes of a step have in common."""

    images: jax.Array
    labels: jax.Array
    sample_keys: jax.Array
    step: jax.Array
    apply: Callable[..., tuple[Any, Any]]
    objective: objective_lib.Objective
    accumulation: int
    axis_name: str | None


@flax.struct.dataclass
class _Sides:
    """What the classifier's two passes return."""

    foreground_logits: jax.Array
    background_logits: jax.Array
    terms: objective_lib.ClassifierTerms
    batch_stats: batch_stats_lib.BatchStats


def _sample_keys(state: TrainState, batch_size: int, axis_name: str | None) -> jax.Array:
    """[B] keys that depend on the step and on an image's place in the global batch, not on its device."""
    device = 0 if axis_name is None else lax.axis_index(axis_name)
    places = device * batch_size + jnp.arange(batch_size)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(state.rng, state.step), places)


def _separate_gradients(given: _Given, state: TrainState):
    """Gradients where the masks are constants: the localizer's, pass by pass, plus the classifier's."""
    erased, localizer_gradients = _erase_by(erasing.erase, given, state.params, state.batch_stats)

    def loss_fn(params):
        sides = _classify_sides(given, params, erased)
        return jnp.mean(sides.terms.total), sides

    classifier_gradients, sides = jax.grad(loss_fn, has_aux=True)(state.params)
    return jax.tree.map(jnp.add, localizer_gradients, classifier_gradients), (erased, sides)


def _joint_gradients(given: _Given, state: TrainState):
    """Gradients where the classifier's terms reach the localizer through the masks."""

    def loss_fn(params):
        erase = functools.partial(erasing.erase_differentiably, max_erasures=given.objective.num_erasures)
        erased = _erase_by(erase, given, params, state.batch_stats)
        sides = _classify_sides(given, params, erased)
        return jnp.mean(erased.losses) + jnp.mean(sides.terms.total), (erased, sides)

    return jax.grad(loss_fn, has_aux=True)(state.params)


def _erase_by(erase_fn, given: _Given, params: Any, batch_stats: batch_stats_lib.BatchStats):
    """Runs one of the two forms of the recursion."""
    objective = given.objective
    return erase_fn(
        functools.partial(_localizer_pass, given),
        params,
        given.images,
        given.labels,
        batch_stats,
        num_erasures=jnp.where(given.step >= objective.erasing_start, objective.num_erasures, 0),
        decay=objective.erasing_decay,
        loss_weight=objective.erased_loss_weight,
        axis_name=given.axis_name,
    )


def _localizer_pass(given: _Given, params: Any, images: jax.Array, batch_stats: batch_stats_lib.BatchStats, num_passes):
    """Pass r of the localizer, over images that earlier passes have erased from."""
    objective, draw = given.objective, _FIRST_LOCALIZER_DRAW + num_passes
    (logits, class_maps), updated = _train_pass(
        given, params, batch_stats, batch_stats_lib.WHOLE, draw, "localize", images
    )
    if not batch_stats_lib.is_shared(batch_stats):
        whole = num_passes == 0
        before = batch_stats_lib.read(batch_stats, batch_stats_lib.WHOLE)
        updated = jax.tree.map(functools.partial(jnp.where, whole), updated, before)
    foreground_masks = masks.foreground_masks(
        logits,
        class_maps,
        images.shape[1:3],
        sigma=schedules.at(objective.sigma, given.step),
        omega=objective.omega,
        normalization=objective.mask_normalization,
        gradient=objective.mask_gradient,
        alignment=objective.mask_alignment,
        axis_name=given.axis_name,
    )
    batch_stats = batch_stats_lib.write(batch_stats, batch_stats_lib.WHOLE, updated)
    return erasing.LocalizerPass(logits=logits, masks=foreground_masks, batch_stats=batch_stats)


def _classify_sides(given: _Given, params: Any, erased: erasing.Erased) -> _Sides:
    """The classifier on the foreground of the original images, then on their background."""
    batch_stats, logits = erased.batch_stats, []
    for stream, draw, side in (
        (batch_stats_lib.FOREGROUND, _FOREGROUND_DRAW, erased.masks),
        (batch_stats_lib.BACKGROUND, _BACKGROUND_DRAW, 1 - erased.masks),
    ):
        side_logits, updated = _train_pass(given, params, batch_stats, stream, draw, "classify", given.images, side)
        batch_stats = batch_stats_lib.write(batch_stats, stream, updated)
        logits.append(side_logits)
    terms = objective_lib.classifier_terms(
        *logits, erased.masks, given.labels, objective=given.objective, step=given.step
    )
    return _Sides(*logits, terms=terms, batch_stats=batch_stats)


def _train_pass(
    given: _Given, params: Any, batch_stats: batch_stats_lib.BatchStats, stream: str, draw, method: str, *inputs
):
    """`_apply`, micro-batch by micro-batch, with the statistics of a stream."""

    def apply(params, sample_keys, *inputs):
        return given.apply(params, batch_stats_lib.read(batch_stats, stream), sample_keys, draw, *inputs, method=method)

    return microbatches.apply_in_parts(apply, given.accumulation, params, given.sample_keys, *inputs)


def _apply(model: minmax_net.MinMaxNet, params: Any, batch_stats: Any, sample_keys: jax.Array, draw, *inputs, method):
    """Applies one of the model's methods in training mode: (its result, the statistics after it).

    Compiled as a function by itself, so that the classifier's two passes, alike in shape, are traced and lowered once.
    """
    keys = jax.vmap(jax.random.fold_in, (0, None))(sample_keys, draw)
    outputs, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        *inputs,
        train=True,
        sample_keys=keys,
        method=method,
        mutable="batch_stats",
        rngs={"dropout": keys[0]},  # For trunks that draw by themselves.
    )
    return outputs, updated.get("batch_stats", {})


def _update_average(state: TrainState, decay: float) -> TrainState:
    if state.average is None:
        return state
    share = jnp.maximum(1 - decay, 9 / (9 + state.step))
    return state.replace(average=optax.incremental_update(state.variables, state.average, share))


def _metrics(given: _Given, erased: erasing.Erased, sides: _Sides) -> dict[str, jax.Array]:
    per_image = {
        "loss": erased.losses + sides.terms.total,
        "localizer_loss": erased.losses,
        "foreground_loss": sides.terms.foreground,
        "background_loss": sides.terms.background,
        "size_loss": sides.terms.size,
        "foreground_entropy": losses.conditional_entropy(sides.foreground_logits),
        "background_entropy": losses.conditional_entropy(sides.background_logits),
        "classification_error": 100.0 * (jnp.argmax(sides.foreground_logits, axis=-1) != given.labels),
        "localizer_classification_error": 100.0 * ~erased.first_correct,
        "foreground_share": jnp.mean(erased.masks, axis=(1, 2, 3)),
        "num_passes": erased.num_passes,
    }
    return {name: jnp.mean(values, dtype=jnp.float32) for name, values in per_image.items()}
