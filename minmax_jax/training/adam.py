"""Adam, and the norm of gradients, in one call on a CPU.

XLA compiles five loops for each of the parameters, of which a network has hundreds: half of the time until the first
step. Other platforms keep the form of optax.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from minmax_jax.ops import platforms
from minmax_jax.ops.cpu import tree_calls

_EPSILON = 1e-8


def scale_by_adam(decays: tuple[float, float]) -> optax.GradientTransformation:
    """As `optax.scale_by_adam`, with the same state; equal up to rounding.

    Args:
        decays: of the moving means of gradients and of their squares.
    """
    elsewhere = optax.scale_by_adam(*decays, eps=_EPSILON)

    def update(updates, state, params=None):
        if not (platforms.is_cpu_alone() and tree_calls.fits(updates, state.mu, state.nu)):
            return elsewhere.update(updates, state, params)
        count = optax.safe_increment(state.count)
        updates, mu, nu = tree_calls.adam(updates, state.mu, state.nu, decays=decays, epsilon=_EPSILON, count=count)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(elsewhere.init, update)


def global_norm(tree: Any) -> jax.Array:
    """The square root of the sum of the squares of all numbers of a tree, [].

    Args:
        tree: of arrays.

    Example:
        >>> import jax.numpy as jnp
        >>> from minmax_jax.training import adam
        >>> float(adam.global_norm({"kernel": jnp.array([3.0]), "bias": jnp.array(4.0)}))
        5.0
    """
    if platforms.is_cpu_alone() and tree_calls.fits(tree):
        return jnp.sqrt(tree_calls.sum_of_squares(tree))
    return optax.tree.norm(tree)
