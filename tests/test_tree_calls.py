"""Operations on all leaves of a tree in one call of a C kernel, against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from minmax_jax.ops.cpu import native, tree_calls
from minmax_jax.training import adam

# A number, nothing, less than a vector, and more numbers than one thread takes at once.
SHAPES = {"scalar": (), "empty": (0, 3), "bias": (5,), "kernel": (3, 3, 40, 120)}

pytestmark = pytest.mark.skipif(not native.is_available(), reason="needs a C compiler")


def _tree(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def _adam(gradients, means, squares, count):
    return tree_calls.adam(gradients, means, squares, decays=(0.9, 0.999), epsilon=1e-8, count=count)


def _expected(gradients, means, squares, count):
    gradients, means, squares = (jax.tree.map(np.float64, tree) for tree in (gradients, means, squares))
    means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
    squares = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, squares, gradients)
    corrected = (1 - 0.9**count, 1 - 0.999**count)
    updates = jax.tree.map(lambda m, v: m / corrected[0] / (np.sqrt(v / corrected[1]) + 1e-8), means, squares)
    return updates, means, squares


@pytest.mark.parametrize("donated", [False, True])
def test_adam(donated):
    gradients, means, squares = _tree(0), _tree(1), jax.tree.map(np.square, _tree(2))
    arguments = jax.tree.map(jnp.array, (gradients, means, squares))
    found = jax.jit(_adam, donate_argnums=(1, 2) if donated else ())(*arguments, jnp.int32(3))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        found,
        _expected(gradients, means, squares, 3),
    )
    if not donated:
        jax.tree.map(np.testing.assert_array_equal, arguments, (gradients, means, squares))


def test_sum_of_squares():
    tree = _tree(0)
    expected = sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in tree.values())
    np.testing.assert_allclose(tree_calls.sum_of_squares(tree), expected, rtol=1e-6)
    np.testing.assert_allclose(adam.global_norm(tree), np.sqrt(expected), rtol=1e-6)


def test_what_is_not_a_number_stays():
    """Training stops where a gradient is not finite; it must be seen."""
    tree = {"kernel": jnp.array([1.0, jnp.nan]), "bias": jnp.array([jnp.inf])}
    zeros = jax.tree.map(jnp.zeros_like, tree)
    updates, means, _ = _adam(tree, zeros, zeros, jnp.int32(1))
    assert np.isnan(adam.global_norm(tree)) and np.isnan(updates["kernel"][1]) and np.isinf(means["bias"])


def test_other_shapes_and_types_are_refused():
    tree = {"kernel": jnp.ones(3)}
    with pytest.raises(TypeError, match=r"adam: float32\[3\], float32\[4\], float32\[3\] must be float32 of one shape"):
        _adam(tree, {"kernel": jnp.ones(4)}, tree, 1)
    half = {"kernel": jnp.ones(3, jnp.bfloat16)}
    with pytest.raises(TypeError, match=r"adam: bfloat16\[3\], float32\[3\]"):
        _adam(half, tree, tree, 1)
    with pytest.raises(TypeError, match=r"sum_of_squares: leaves are \['bfloat16'\], not float32"):
        tree_calls.sum_of_squares(half)


def test_other_types_take_the_form_of_optax():
    params = {"kernel": jnp.array([3.0, 4.0], jnp.bfloat16)}
    assert float(adam.global_norm(params)) == 5.0
    tx = adam.scale_by_adam((0.9, 0.999))
    updates, state = tx.update(params, tx.init(params))
    assert isinstance(state, optax.ScaleByAdamState) and state.mu["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(updates["kernel"], np.float32), 1, rtol=1e-2)


def test_a_step_is_one_call():
    """The reason for the kernel: whatever the number of leaves, XLA has one operation to compile for each tree."""
    params = {str(number): jnp.ones(number + 1) for number in range(20)}
    tx = adam.scale_by_adam((0.9, 0.999))
    text = jax.jit(tx.update).lower(params, tx.init(params)).as_text()
    assert text.count("@minmax_adam") == 1 and text.count("stablehlo.sqrt") == 0
