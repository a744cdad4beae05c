"""Loss terms against NumPy in double precision and by hand."""

import jax
from jax import test_util
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


def test_background_ratio_by_hand():
    background = jnp.array([[1.0, 9.0], [3.0, 0.0], [-1.0, 5.0], [2.0, 2.0], [-3.0, 2.0]])
    whole = jnp.array([[4.0, -7.0], [2.0, 0.0], [2.0, 1.0], [0.0, -2.0], [-1.0, 4.0]])
    found = losses.background_ratio(background, whole, jnp.array([0, 0, 0, 1, 0]))
    # A quarter; more than the whole; none; something of nothing; nothing of nothing.
    np.testing.assert_allclose(found, [0.25, 1.0, 0.0, 1.0, 0.0], rtol=1e-6)


def test_background_ratio_trains_by_the_background_of_the_true_class_alone():
    background, whole, labels = (
        jnp.array([[1.0, 9.0], [5.0, 0.0]]),
        jnp.array([[4.0, 1.0], [2.0, 0.0]]),
        jnp.zeros(2, int),
    )
    by_background, by_whole = jax.grad(lambda *logits: losses.background_ratio(*logits, labels).sum(), (0, 1))(
        background, whole
    )
    np.testing.assert_allclose(by_background, [[0.25, 0.0], [0.0, 0.0]], rtol=1e-6)
    assert not np.any(by_whole)


_MASKS = np.random.default_rng(3).uniform(size=(4, 3, 5, 1))


@pytest.mark.parametrize("target", [0.1, 0.9])
def test_area_loss_equals_numpy_and_finite_differences(target):
    expected = np.abs(_MASKS.mean() - target) + (_MASKS * (1 - _MASKS)).mean(axis=(1, 2, 3))
    with jax.enable_x64(True):
        loss = lambda masks: losses.area_loss(masks, target)
        np.testing.assert_allclose(loss(jnp.asarray(_MASKS)), expected, rtol=1e-12)
        test_util.check_grads(lambda masks: loss(masks).mean(), (jnp.asarray(_MASKS),), order=1, modes=["rev"])


def test_area_loss_of_four_devices_is_that_of_the_whole_batch():
    """Where some devices are above the target and some below, none decides by its own masks."""
    masks = jnp.asarray(_MASKS * np.array([0.1, 0.4, 0.8, 1.0])[:, None, None, None], jnp.float32)
    loss = lambda masks, axis_name=None: losses.area_loss(masks, 0.25, axis_name=axis_name).mean()
    value, gradient = jax.value_and_grad(loss)(masks)
    mapped = jax.pmap(jax.value_and_grad(lambda masks: loss(masks, "devices")), axis_name="devices")
    values, gradients = mapped(masks[:, None])
    np.testing.assert_allclose(values.mean(), value, rtol=1e-6)
    # A step takes the mean over the devices, each with a quarter of the batch.
    np.testing.assert_allclose(gradients[:, 0] / 4, gradient, rtol=1e-5)
