"""The engine "shard_map": data parallelism by `jax.shard_map` inside `jax.jit`, JAX's successor of pmap."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import numpy as np

from minmax_jax.distributed.devices import AXIS, replicate

_REPLICATED, _SHARDED = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)


def parallelize_train_step(train_step: Callable) -> Callable:
    """(state, this host's batch [B, ...]) -> (state, metrics) on all devices; see `engines`."""
    mesh = _mesh(jax.devices())
    step = jax.jit(
        _shard_map(functools.partial(train_step, axis_name=AXIS), mesh, (_REPLICATED, _REPLICATED)),
        donate_argnums=(0,),
    )

    def run(state, batch):
        if jax.process_count() > 1:
            batch = _from_hosts(batch, mesh, _SHARDED)
            if not jax.tree.leaves(state)[0].sharding.is_equivalent_to(_sharding(mesh, _REPLICATED), 0):
                state = _to_all_hosts(state, mesh)
        return step(state, batch)

    return run


def parallelize_predict(predict: Callable) -> Callable:
    """(variables, images [B, H, W, 3]) -> predictions on the devices of this host; see `engines`."""
    on_devices = jax.jit(_shard_map(predict, _mesh(jax.local_devices()), _SHARDED))

    def run(variables, images):
        if jax.process_count() > 1:
            variables = replicate(jax.tree.map(lambda array: array.addressable_data(0), variables))
        return on_devices(variables, images)

    return run


def _shard_map(function: Callable, mesh: jax.sharding.Mesh, out_specs: Any) -> Callable:
    """`function` with the first argument replicated and the second sharded."""
    # With check_vma=True autodiff sums the gradients of replicated parameters over the devices by itself; followed by
    # the step's own mean they would be too large by the number of devices.
    return jax.shard_map(function, mesh=mesh, in_specs=(_REPLICATED, _SHARDED), out_specs=out_specs, check_vma=False)


def _mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(devices), (AXIS,))


def _sharding(mesh: jax.sharding.Mesh, spec: jax.sharding.PartitionSpec) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh, spec)


def _from_hosts(tree: Any, mesh: jax.sharding.Mesh, spec: jax.sharding.PartitionSpec) -> Any:
    """Global arrays from the parts of the hosts."""
    make = functools.partial(jax.make_array_from_process_local_data, _sharding(mesh, spec))
    return jax.tree.map(lambda array: make(np.asarray(array)), tree)


def _to_all_hosts(state: Any, mesh: jax.sharding.Mesh) -> Any:
    """A state that is the same on every host, as global replicated arrays."""

    def move(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = _from_hosts(jax.random.key_data(leaf), mesh, _REPLICATED)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return _from_hosts(leaf, mesh, _REPLICATED)

    return jax.tree.map(move, state)
