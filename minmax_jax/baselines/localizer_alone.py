"""The localizer without the classifier: WILDCAT (Durand et al., CVPR 2017) and class activation maps (CVPR 2016).

The first things to compare min-max entropy with: the same trunk, head, masks and optimizer, and no term but the cross
entropy of the localizer's logits. Nothing is erased.
"""

import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import optax

from minmax_jax import losses
from minmax_jax.method import Method, Prediction
from minmax_jax.minmax import inference
from minmax_jax.minmax.objective import Objective
from minmax_jax.models.minmax_net import MinMaxNet
from minmax_jax.ops import device_means, intensity
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training.state import TrainState, create_train_state, update_average


def create_method(
    model: MinMaxNet,
    tx: optax.GradientTransformation,
    objective: Objective,
    *,
    average_decay: float = 0.0,
    shared_statistics: bool = False,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> Method:
    """A method that trains and applies the localizer of the networks; their classifier keeps its first parameters.

    Args:
        model: the networks.
        tx: the optimizer.
        objective: its masks and its classes without a region are those of inference.
        average_decay: as in `step.train_step`.
        shared_statistics: as in `state.create_train_state`.
        flip_horizontal: test-time augmentation, as in `inference.localize`.
        flip_vertical: as `flip_horizontal`.
        scales: as `flip_horizontal`.
    """
    return Method(
        init=functools.partial(
            create_train_state, model=model, tx=tx, shared_statistics=shared_statistics, average=average_decay > 0
        ),
        train_step=functools.partial(train_step, model=model, tx=tx, average_decay=average_decay),
        predict=functools.partial(
            predict,
            model=model,
            objective=objective,
            flip_horizontal=flip_horizontal,
            flip_vertical=flip_vertical,
            scales=scales,
        ),
        log_terms=(),
        stages=functools.partial(inference.trunk_stages, model=model),
    )


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: MinMaxNet,
    tx: optax.GradientTransformation,
    average_decay: float = 0.0,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates the localizer by one batch; arguments and metrics as far as they apply as in `step.train_step`."""
    device_means.check_axis(batch["images"], axis_name)
    images, labels = intensity.normalize(batch["images"]), batch["labels"]
    first = 0 if axis_name is None else lax.axis_index(axis_name) * len(labels)
    rng = jax.random.fold_in(state.rng, state.step)
    sample_keys = jax.vmap(jax.random.fold_in, (None, 0))(rng, first + jnp.arange(len(labels)))

    def loss_fn(params):
        (logits, _), updated = model.apply(
            {"params": params, "batch_stats": stats_lib.read(state.batch_stats, stats_lib.WHOLE)},
            images,
            train=True,
            sample_keys=sample_keys,
            method="localize",
            mutable="batch_stats",
            rngs={"dropout": sample_keys[0]},
        )
        error = 100.0 * jnp.mean(jnp.argmax(logits, axis=-1) != labels, dtype=jnp.float32)
        return jnp.mean(losses.cross_entropy(logits, labels)), (error, updated.get("batch_stats", {}))

    (loss, (error, updated)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    metrics = {"loss": loss, "classification_error": error}
    if axis_name is not None:
        gradients, updated, metrics = device_means.device_means((gradients, updated, metrics), axis_name)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=stats_lib.write(state.batch_stats, stats_lib.WHOLE, updated),
        opt_state=opt_state,
    )
    return update_average(state, average_decay), metrics


def predict(
    variables: dict[str, Any],
    images: jax.Array,
    *,
    model: MinMaxNet,
    objective: Objective,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> Prediction:
    """Classes and masks of the localizer, as a `Prediction`; arguments as in `minmax.predict`."""
    mask_arguments = objective.inference_masks(variables["step"])

    def predict_view(images):
        logits, foreground = inference.localizer_masks(variables, images, model=model, **mask_arguments)
        return foreground, {"probabilities": jax.nn.softmax(logits)}

    images = intensity.normalize(images)
    foreground, scores = inference.mean_over_views(
        predict_view, images, flip_horizontal=flip_horizontal, flip_vertical=flip_vertical, scales=scales
    )
    probabilities = scores.pop("probabilities")
    foreground = inference.without_background(foreground, probabilities, objective.background_classes)
    return Prediction(probabilities=probabilities, masks=foreground, scores=scores)
