"""Means over the devices that share a batch, in few exchanges."""

from typing import Any

from jax import flatten_util, lax

from minmax_jax.ops import platforms


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
