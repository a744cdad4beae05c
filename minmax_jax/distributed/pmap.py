"""All of pmap and of several hosts: nothing else in the library knows how many devices there are."""

from collections.abc import Callable, Sequence
import functools
import itertools
import pickle
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

AXIS = "batch"


def replicate(state: Any) -> Any:
    """The state on all devices of this host, as `pmap_train_step` returns it: so that it is compiled once."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def pmap_train_step(train_step: Callable, devices: Sequence[jax.Device] | None = None) -> Callable:
    """A train step whose batch is shared by devices; the state is the same on each.

    Args:
        train_step: `train_step.train_step` with everything bound but state, batch and axis name.
        devices: those that share it, or None: all devices of all hosts.

    Returns:
        (replicated state, this host's batch) -> (state, metrics). The state that goes in must not be used again.
    """
    return jax.pmap(
        functools.partial(train_step, axis_name=AXIS),
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
        devices=devices,
    )


def pmap_localize(localize: Callable) -> Callable:
    """Inference shared by this host's devices.

    Args:
        localize: (state, images) -> Localization.

    Returns:
        The same for [B, H, W, 3] images, B a multiple of the devices.
    """
    on_devices = jax.pmap(localize, in_axes=(None, 0), devices=jax.local_devices())

    def run(state, images):
        found = on_devices(state, split_among_devices(images))
        return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), found)

    return run


def split_among_devices(batch: Any) -> Any:
    """Arrays [B, ...] to [D, B / D, ...] for the D devices of this host, in order."""
    num_devices = jax.local_device_count()
    return jax.tree.map(lambda array: array.reshape(num_devices, -1, *array.shape[1:]), batch)


def share_of_host(num_examples: int) -> np.ndarray:
    """Indices of what this host evaluates."""
    return np.arange(jax.process_index(), num_examples, jax.process_count())


def gather_from_hosts(items: list) -> list:
    """The items of all hosts, on each host, in the order in which `share_of_host` dealt them out."""
    if jax.process_count() == 1:
        return items
    content = np.frombuffer(pickle.dumps(items), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(content))).ravel()
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(content)] = content
    contents = multihost_utils.process_allgather(padded)
    shares = [pickle.loads(row[:length].tobytes()) for row, length in zip(contents, lengths)]
    gathered = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return [item for item in gathered if item is not None]


def is_main_host() -> bool:
    """Whether this process writes files and talks."""
    return jax.process_index() == 0
