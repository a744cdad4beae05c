"""The axis that devices share a batch on, and the state on all devices of this host."""

from typing import Any

import jax
import numpy as np

AXIS = "batch"


def replicate(state: Any) -> Any:
    """The state on all devices of this host, sharded as a parallel step returns it, so that it compiles once."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
