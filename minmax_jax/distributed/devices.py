"""The axis that devices share a batch on, and the state on all devices of this host."""

from typing import Any

import jax
import numpy as np

AXIS = "batch"


def replicate(state: Any) -> Any:
    """The state on all devices of this host, sharded as a parallel step returns it, so that it compiles once."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def peak_memory() -> tuple[int, int] | None:
    """Bytes that were in use at most, and all bytes, of the device of this host that used most; None without numbers.

    Devices that are CPUs use the memory of the process, and count nothing.
    """
    counts = [device.memory_stats() or {} for device in jax.local_devices()]
    found = [
        (count["peak_bytes_in_use"], count.get("bytes_limit", 0)) for count in counts if "peak_bytes_in_use" in count
    ]
    return max(found, default=None)
