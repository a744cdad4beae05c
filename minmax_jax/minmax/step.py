"""One training step: the only place where networks, losses and erasing meet.

    train_step(state, images X, labels y):
        P, X_0 = 0, X                                        # accumulated foreground, images to erase from
        for r in 0 ... R - 1, while an image is left to erase:                           (erasing.py)
            logits_r, class_maps = localizer(X_r)                                        (models/localizer.py)
            M_r = sigmoid(omega (scale(resize(class_maps)) - sigma))                     (masks.py)
            L_loc += cross_entropy(logits_r, y)                                          (losses.py)
            P = max(P, trust_r * M_r);  X_{r+1} = X_r * (1 - P)
        L+ = cross_entropy(classifier(X * P), y)             # low entropy on the foreground
        L- = cross_entropy(uniform, classifier(X * (1 - P))) # high entropy on the background
        gradients = d mean(L_loc + L+ + background_weight L-) / d params                 (objective.py)
        return optimizer update of state, metrics

It runs under plain Python, jit, pmap and shard_map alike: the only thing it knows about devices is the name of the
mapped axis.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from minmax_jax import losses
from minmax_jax.base import errors
from minmax_jax.minmax import erasing
from minmax_jax.minmax import objective as objective_lib
from minmax_jax.minmax import passes as passes_lib
from minmax_jax.models import minmax_net
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training import update
from minmax_jax.training.state import TrainState

# Metrics that images without a region do not count in, and the share of the images that have one.
_OF_REGIONS = ("background_loss", "background_entropy", "size_loss", "area_loss", "foreground_share")
_REGION_SHARE = "region_share"


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
        state: the state before the step.
        batch: "images" [B, H, W, 3], uint8 or scaled to [-1, 1], and "labels" [B]; on each device its share.
        model: the networks.
        tx: the optimizer.
        objective: what to minimise.
        accumulation: number of micro-batches that the batch (on each device its share) is split into, see
            `minmax_jax.training.microbatches`. Batch norm normalizes each separately; its running statistics take the
            mean over them, as over devices.
        average_decay: as in `state.update_average`.
        axis_name: mapped axis of the devices that share the batch, or None.

    Returns:
        The state after the step, and means over the whole batch: "loss" and its terms "localizer_loss" (summed over
        the passes), "foreground_loss", "background_loss", "size_loss"; "foreground_entropy" and "background_entropy"
        in nats; "classification_error" and "localizer_classification_error" in percent; "foreground_share" of the
        pixels; "num_passes" of the localizer; "gradient_norm"; the objective's further terms, such as "area_loss".
        With `objective.background_classes`, the metrics of a region or its background ("background_loss",
        "background_entropy", "size_loss", "area_loss", "foreground_share") are means over the images that have one,
        and 0 of a batch without any.

    Raises:
        OptionError: if the batch cannot be split evenly, or in a `shard_map` without `check_vma=False`.

    Example:
        Two passes of the localizer, on any Flax module as a trunk:

        >>> import functools
        >>> import flax.linen as nn
        >>> import jax
        >>> import minmax_jax as mm
        >>> class Trunk(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, images, *, train):
        ...         return {8: nn.relu(nn.Conv(4, (8, 8), strides=(8, 8))(images))}
        >>> model, tx = mm.create_model(Trunk(), num_classes=2), mm.create_optimizer("sgd", 0.01)
        >>> objective = mm.Objective(erasing=mm.erasing.ErasingOptions(num_erasures=2, start_epoch=0))
        >>> step = jax.jit(functools.partial(mm.train_step, model=model, tx=tx, objective=objective))
        >>> state = mm.create_train_state(jax.random.key(0), (32, 32), model=model, tx=tx)
        >>> images, labels = jax.random.uniform(jax.random.key(1), (4, 32, 32, 3), minval=-1), jax.numpy.arange(4) % 2
        >>> state, metrics = step(state, {"images": images, "labels": labels})
        >>> int(state.step), float(metrics["num_passes"])
        (1, 2.0)
    """
    if len(batch["labels"]) % accumulation:
        raise errors.OptionError(
            f"accumulation={accumulation} must divide the {len(batch['labels'])} images of each device."
        )
    images, labels, sample_keys = update.start_step(state, batch, axis_name)
    inputs = passes_lib.StepInputs(
        images=images,
        labels=labels,
        sample_keys=sample_keys,
        step=state.step,
        apply=passes_lib.create_apply(model),
        objective=objective,
        accumulation=accumulation,
        axis_name=axis_name,
    )
    differentiate = _separate_gradients if objective.mask.gradient == "stop" else _joint_gradients
    gradients, (erased, passes) = differentiate(inputs, state)
    state, metrics = update.finish_step(
        state,
        gradients,
        passes.batch_stats,
        _metrics(inputs, erased, passes),
        tx=tx,
        average_decay=average_decay,
        axis_name=axis_name,
    )
    return state, _over_regions(metrics)


def _separate_gradients(inputs: passes_lib.StepInputs, state: TrainState):
    """Gradients with constant masks: the localizer's, pass by pass, plus the classifier's."""
    erased, localizer_gradients = _erase_by(erasing.erase, inputs, state.params, state.batch_stats)

    def loss_fn(params):
        passes = passes_lib.classify(inputs, params, erased)
        return jnp.mean(passes.terms.total), passes

    classifier_gradients, passes = jax.grad(loss_fn, has_aux=True)(state.params)
    return jax.tree.map(jnp.add, localizer_gradients, classifier_gradients), (erased, passes)


def _joint_gradients(inputs: passes_lib.StepInputs, state: TrainState):
    """Gradients with the classifier's terms reaching the localizer through the masks."""

    def loss_fn(params):
        erase = functools.partial(erasing.erase_differentiably, max_erasures=inputs.objective.erasing.num_erasures)
        erased = _erase_by(erase, inputs, params, state.batch_stats)
        passes = passes_lib.classify(inputs, params, erased)
        return jnp.mean(erased.losses) + jnp.mean(passes.terms.total), (erased, passes)

    return jax.grad(loss_fn, has_aux=True)(state.params)


def _erase_by(erase_fn, inputs: passes_lib.StepInputs, params: Any, batch_stats: stats_lib.BatchStats):
    """Runs one of the two forms of the recursion."""
    objective, options = inputs.objective, inputs.objective.erasing
    return erase_fn(
        functools.partial(passes_lib.localizer_pass, inputs),
        params,
        inputs.images,
        inputs.labels,
        batch_stats,
        num_erasures=jnp.where(objective.epoch(inputs.step) >= options.start_epoch, options.num_erasures, 0),
        decay=options.decay,
        loss_weight=options.loss_weight,
        has_region=objective.has_region(inputs.labels),
        axis_name=inputs.axis_name,
    )


def _metrics(
    inputs: passes_lib.StepInputs, erased: erasing.Erased, passes: passes_lib.ClassifierPasses
) -> dict[str, jax.Array]:
    per_image = {
        "loss": erased.losses + passes.terms.total,
        "localizer_loss": erased.losses,
        "foreground_loss": passes.terms.foreground,
        "background_loss": passes.terms.background,
        "size_loss": passes.terms.size,
        "foreground_entropy": losses.conditional_entropy(passes.foreground_logits),
        "background_entropy": losses.conditional_entropy(passes.background_logits),
        "classification_error": 100.0 * (jnp.argmax(passes.foreground_logits, axis=-1) != inputs.labels),
        "localizer_classification_error": 100.0 * ~erased.first_correct,
        "foreground_share": jnp.mean(erased.masks, axis=(1, 2, 3)),
        "num_passes": erased.num_passes,
        **{f"{name}_loss": values for name, values in passes.terms.further.items()},
    }
    has_region = inputs.objective.has_region(inputs.labels)
    if has_region is not None:
        per_image |= {name: jnp.where(has_region, per_image[name], 0) for name in _OF_REGIONS if name in per_image}
        per_image[_REGION_SHARE] = has_region
    return {name: jnp.mean(values, dtype=jnp.float32) for name, values in per_image.items()}


def _over_regions(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Metrics of regions as means over the images that have one, from means over all devices and images."""
    if _REGION_SHARE not in metrics:
        return metrics
    share = metrics.pop(_REGION_SHARE)
    return metrics | {name: metrics[name] / jnp.maximum(share, 1e-12) for name in _OF_REGIONS if name in metrics}
