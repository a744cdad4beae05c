"""Means over the devices that share a batch, in few exchanges."""

from typing import Any

import jax
from jax import flatten_util, lax

from minmax_jax.base.errors import OptionError
from minmax_jax.ops import platforms


def check_axis(array: jax.Array, axis_name: str | None) -> None:
    """Raises OptionError in a `shard_map` that sums the gradients of replicated parameters by itself.

    Followed by the mean over the devices, they would be too large by the number of devices.
    """
    kind = getattr(jax.typeof(array), "manual_axis_type", None)  # of another JAX, unknown
    if axis_name is not None and axis_name in getattr(kind, "varying", ()):
        raise OptionError(
            f"axis_name={axis_name!r} is that of a jax.shard_map with check_vma=True, whose gradients are sums over the"
            " devices already. Pass check_vma=False to jax.shard_map."
        )


def device_means(tree: Any, axis_name: str) -> Any:
    """The mean of each array over the devices of a mapped axis.

    On CPUs all arrays travel as one: an exchange between hosts takes a millisecond or more however small it is, and
    where compilers for GPUs and TPUs put the exchanges of a step together, that for CPUs leaves one for each array.

    Args:
        tree: arrays of floating-point numbers; the widest type among them is what travels.
        axis_name: the mapped axis.
    """
    if not platforms.is_cpu_alone():
        return lax.pmean(tree, axis_name)
    together, take_apart = flatten_util.ravel_pytree(tree)
    return take_apart(lax.pmean(together, axis_name))
