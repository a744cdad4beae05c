"""What training steps of all methods share: their first and last lines, and a forward pass in training mode."""

from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import optax

from minmax_jax.ops import device_means, intensity
from minmax_jax.training import adam
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training.state import TrainState, update_average


def start_step(
    state: TrainState, batch: dict[str, jax.Array], axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a step computes with.

    Args:
        state: before the step.
        batch: "images" [B, H, W, 3], uint8 or scaled to [-1, 1], and "labels" [B]; on each device its share.
        axis_name: mapped axis of the devices that share the batch, or None.

    Returns:
        Images [B, H, W, 3] in [-1, 1], labels [B], and random keys [B] that depend on the step and on an image's index
        in the global batch, not on its device.

    Raises:
        OptionError: in a `shard_map` without `check_vma=False`.
    """
    device_means.check_axis(batch["images"], axis_name)
    images, labels = intensity.normalize(batch["images"]), batch["labels"]
    device = 0 if axis_name is None else lax.axis_index(axis_name)
    indices = device * len(labels) + jnp.arange(len(labels))
    rng = jax.random.fold_in(state.rng, state.step)
    return images, labels, jax.vmap(jax.random.fold_in, (None, 0))(rng, indices)


def apply_in_training(
    model: nn.Module, params: Any, batch_stats: Any, *arrays: jax.Array, sample_keys: jax.Array, method: str
) -> tuple[Any, Any]:
    """A forward pass with batch statistics and dropout.

    Args:
        model: networks, such as a `MinMaxNet`.
        params: their parameters.
        batch_stats: running statistics of one stream before the pass.
        *arrays: of the method, [B, ...] each.
        sample_keys: [B] random keys of the images.
        method: name of the method, such as "localize".

    Returns:
        What the method returns, and the running statistics after the pass; {} of networks without any.
    """
    outputs, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        *arrays,
        train=True,
        sample_keys=sample_keys,
        method=method,
        mutable="batch_stats",
        rngs={"dropout": sample_keys[0]},  # for trunks with dropout of their own
    )
    return outputs, updated.get("batch_stats", {})


def finish_step(
    state: TrainState,
    gradients: Any,
    batch_stats: stats_lib.BatchStats,
    metrics: dict[str, jax.Array],
    *,
    tx: optax.GradientTransformation,
    average_decay: float = 0.0,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after a step, from what each device found on its share of the batch.

    Args:
        state: before the step.
        gradients: of the parameters, of the mean loss over this device's images.
        batch_stats: all running statistics after the step, of this device's images.
        metrics: scalars, means over this device's images.
        tx: the optimizer.
        average_decay: as in `state.update_average`.
        axis_name: mapped axis of the devices that share the batch, or None.

    Returns:
        The state, and the metrics as means over all devices, with "gradient_norm".
    """
    if axis_name is not None:
        gradients, batch_stats, metrics = device_means.device_means((gradients, batch_stats, metrics), axis_name)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    after = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
    return update_average(after, average_decay), metrics | {"gradient_norm": adam.global_norm(gradients)}
