"""Loss terms against NumPy in double precision and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax import losses

LOGITS = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [4.0, 4.0, -4.0]])
LABELS = np.array([2, 0, 1])


def _log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def test_cross_entropy():
    expected = -_log_softmax(LOGITS)[np.arange(3), LABELS]
    np.testing.assert_allclose(losses.cross_entropy(jnp.asarray(LOGITS), LABELS), expected, rtol=1e-6)


def test_conditional_entropy():
    log_p = _log_softmax(LOGITS)
    expected = -np.sum(np.exp(log_p) * log_p, axis=-1)
    np.testing.assert_allclose(losses.conditional_entropy(jnp.asarray(LOGITS)), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.conditional_entropy(jnp.zeros((1, 7))), [np.log(7)], rtol=1e-6)


def test_background_losses():
    log_p = _log_softmax(LOGITS)
    surrogate, explicit = losses.BACKGROUND_LOSSES["surrogate"], losses.BACKGROUND_LOSSES["explicit"]
    np.testing.assert_allclose(surrogate(jnp.asarray(LOGITS)), -log_p.mean(axis=-1), rtol=1e-6)
    np.testing.assert_allclose(explicit(jnp.asarray(LOGITS)), np.sum(np.exp(log_p) * log_p, axis=-1), rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.conditional_entropy, losses.uniform_cross_entropy])
def test_confident_scores_stay_finite(loss):
    """log(softmax) would be minus infinity, and 0 times it not a number."""
    logits = jnp.array([[200.0, 0.0, -200.0]])
    assert np.isfinite(loss(logits)).all()
    assert np.isfinite(jax.grad(lambda x: jnp.sum(loss(x)))(logits)).all()


def test_explicit_gradient_vanishes_where_the_surrogate_still_pushes():
    logits = jnp.array([[30.0, 0.0]])
    gradients = {name: jax.grad(lambda x: jnp.sum(loss(x)))(logits) for name, loss in losses.BACKGROUND_LOSSES.items()}
    assert np.abs(gradients["explicit"]).max() < 1e-6
    np.testing.assert_allclose(gradients["surrogate"], [[0.5, -0.5]], rtol=1e-5)


def test_log_barrier_by_hand():
    t = 5.0
    inside = -np.log(0.2) / t  # z = -0.2 is below -1/25
    outside = t * 0.1 - np.log(1 / t**2) / t + 1 / t
    np.testing.assert_allclose(losses.log_barrier(jnp.array([-0.2, 0.1]), t), [inside, outside], rtol=1e-6)


def test_log_barrier_is_smooth_where_its_parts_meet():
    t, meeting = 4.0, -1 / 16
    for function in (losses.log_barrier, jax.grad(losses.log_barrier)):
        below, above = function(meeting - 1e-6, t), function(meeting + 1e-6, t)
        np.testing.assert_allclose(below, above, rtol=1e-4)


def test_size_barrier_on_pixels():
    masks = jnp.full((1, 2, 5, 1), 0.3)
    expected = -(np.log(3.0) + np.log(7.0)) / 5
    np.testing.assert_allclose(losses.size_barrier(masks, 5.0), [expected], rtol=1e-6)


def test_size_barrier_with_bounds():
    masks = jnp.full((1, 2, 5, 1), 0.3)
    expected = -(np.log(0.3 - 0.1) + np.log(0.8 - 0.3)) / 5
    np.testing.assert_allclose(losses.size_barrier(masks, 5.0, (0.1, 0.8)), [expected], rtol=1e-5)


def test_size_barrier_pulls_towards_half_the_image():
    def slope(share):
        return jax.grad(lambda s: losses.size_barrier(jnp.full((1, 4, 4, 1), s), 5.0)[0])(share)

    assert slope(0.2) < 0 < slope(0.8)
    np.testing.assert_allclose(slope(0.5), 0, atol=1e-6)


def test_size_barrier_is_finite_for_empty_and_full_masks():
    for share in (0.0, 1.0):
        value, gradient = jax.value_and_grad(lambda s: losses.size_barrier(jnp.full((1, 4, 4, 1), s), 5.0)[0])(share)
        assert np.isfinite(value) and np.isfinite(gradient)
