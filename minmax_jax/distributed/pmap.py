"""The engine "pmap": data parallelism by `jax.pmap`."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax

from minmax_jax.distributed.devices import AXIS


def pmap_train_step(train_step: Callable, devices: Sequence[jax.Device] | None = None) -> Callable:
    """A train step whose batch is shared by devices; the state is the same on each.

    Args:
        train_step: (state, batch, *, axis_name) -> (state, metrics).
        devices: that share it, or None: all devices of all hosts.

    Returns:
        (replicated state, this host's batch [D, B / D, ...]) -> (state, metrics). The state passed in is donated.
    """
    return jax.pmap(
        functools.partial(train_step, axis_name=AXIS),
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
        devices=devices,
    )


def parallelize_train_step(train_step: Callable) -> Callable:
    """(state, this host's batch [B, ...]) -> (state, metrics) on all devices; see `engines`."""
    step = pmap_train_step(train_step)
    return lambda state, batch: step(state, split_among_devices(batch))


def parallelize_predict(predict: Callable) -> Callable:
    """(variables, images [B, H, W, 3]) -> predictions on the devices of this host; see `engines`."""
    on_devices = jax.pmap(predict, in_axes=(None, 0), devices=jax.local_devices())

    def run(variables, images):
        prediction = on_devices(variables, split_among_devices(images))
        return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), prediction)

    return run


def split_among_devices(batch: Any) -> Any:
    """Arrays [B, ...] to [D, B / D, ...] for the D devices of this host, in order."""
    num_devices = jax.local_device_count()
    return jax.tree.map(lambda array: array.reshape(num_devices, -1, *array.shape[1:]), batch)
