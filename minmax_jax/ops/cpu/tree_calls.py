"""Calls of leaves.c: one operation for all leaves of a tree, float32 throughout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from minmax_jax.ops.cpu.library import is_available


def fits(*trees: Any) -> bool:
    """Whether the kernels can be called: all leaves are float32, and programs run on a CPU that has the library."""
    leaves = jax.tree.leaves(trees)
    return bool(leaves) and all(leaf.dtype == jnp.float32 for leaf in leaves) and is_available()


def adam(
    gradients: Any, means: Any, squares: Any, *, decays: tuple[float, float], epsilon: float, count: jax.Array
) -> tuple[Any, Any, Any]:
    """(updates, moving means of gradients, of their squares) of Adam (Kingma and Ba, ICLR 2015), as trees.

    Args:
        gradients: a tree.
        means: a tree of the same shapes; its memory is used again where it is donated.
        squares: as `means`.
        decays: of means and squares.
        epsilon: added to the root of the squares.
        count: [] number of this step, from 1.

    Raises:
        TypeError: for trees of different shapes or another type than float32: the kernel would read out of bounds.
    """
    structure = jax.tree.structure(gradients)
    groups = [structure.flatten_up_to(tree) for tree in (gradients, means, squares)]
    for leaves in zip(*groups, strict=True):
        if len({leaf.shape for leaf in leaves}) > 1 or any(leaf.dtype != jnp.float32 for leaf in leaves):
            found = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
            raise TypeError(f"adam: {found} must be float32 of one shape.")
    decays = jnp.asarray(decays, jnp.float32)
    constants = jnp.concatenate([decays, jnp.array([epsilon], jnp.float32), 1 - decays, 1 - decays**count])
    operands = [leaf for group in groups for leaf in group]
    size = len(groups[0])
    results = jax.ffi.ffi_call(
        "minmax_adam",
        [jax.ShapeDtypeStruct(leaf.shape, np.float32) for leaf in operands],
        input_output_aliases={1 + place: place for place in range(size, 3 * size)},
    )(constants, *operands)
    return tuple(structure.unflatten(results[start : start + size]) for start in range(0, 3 * size, size))


def sum_of_squares(tree: Any) -> jax.Array:
    """The sum of the squares of all numbers of a tree, [] float32, added in double precision.

    Args:
        tree: of float32 arrays.

    Raises:
        TypeError: for another type.
    """
    leaves = jax.tree.leaves(tree)
    if any(leaf.dtype != jnp.float32 for leaf in leaves):
        raise TypeError(f"sum_of_squares: leaves are {sorted({str(leaf.dtype) for leaf in leaves})}, not float32.")
    return jax.ffi.ffi_call("minmax_sum_of_squares", jax.ShapeDtypeStruct((), np.float32))(*leaves)
