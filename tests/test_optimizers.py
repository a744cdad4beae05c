"""Update rules in NumPy, as PyTorch documents them, and learning rates by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.training import optimizers, schedules

GRADIENTS = [np.array([1.0, -2.0]), np.array([0.5, 0.5]), np.array([-1.0, 3.0])]


def _run(tx, start=(1.0, 2.0)):
    params = {"kernel": jnp.asarray(start)}
    state = tx.init(params)
    for gradient in GRADIENTS:
        updates, state = tx.update({"kernel": jnp.asarray(gradient)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params["kernel"]


def _sgd(decay, rate=0.1):
    weights, buffer = np.array([1.0, 2.0]), None
    for gradient in GRADIENTS:
        gradient = gradient + decay * weights
        buffer = gradient if buffer is None else 0.9 * buffer + gradient
        weights = weights - rate * (gradient + 0.9 * buffer)
    return weights


@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_sgd(decay):
    tx = optimizers.create_optimizer("sgd", 0.1, weight_decay=decay)
    np.testing.assert_allclose(_run(tx), _sgd(decay), rtol=1e-6)


def _adam(decay, coupled, rate=0.1):
    weights, mean, square = np.array([1.0, 2.0]), 0.0, 0.0
    for step, gradient in enumerate(GRADIENTS, start=1):
        gradient = gradient + (decay * weights if coupled else 0)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        direction = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        weights = weights - rate * (direction + (0 if coupled else decay * weights))
    return weights


@pytest.mark.parametrize("kind, coupled", [("adam", True), ("adamw", False)])
def test_adam(kind, coupled):
    tx = optimizers.create_optimizer(kind, 0.1, weight_decay=0.05)
    np.testing.assert_allclose(_run(tx), _adam(0.05, coupled), rtol=1e-5)


def test_all_parameters_decay():
    """By 1.9 tenths: Nesterov's first step."""
    tx = optimizers.create_optimizer("sgd", 1.0, weight_decay=0.1)
    params = {"layer": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["layer"]["kernel"], -0.19, rtol=1e-6)
    np.testing.assert_allclose(updates["layer"]["bias"], -0.19, rtol=1e-6)


@pytest.mark.parametrize("kind", optimizers.OPTIMIZERS)
def test_frozen_parameters_do_not_decay(kind):
    tx = optimizers.create_optimizer(kind, 1.0, weight_decay=0.1)
    params = {"trunk": {"frozen": {"kernel": jnp.ones(2)}, "other": {"kernel": jnp.ones(2)}}}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert (updates["trunk"]["frozen"]["kernel"] == 0).all() and (updates["trunk"]["other"]["kernel"] < 0).all()


def test_clipping_by_global_norm():
    tx = optimizers.create_optimizer("sgd", 1.0, weight_decay=0.0, clip_norm=1.0)
    gradients = {"a": jnp.asarray([3.0]), "b": jnp.asarray([4.0])}
    updates, _ = tx.update(gradients, tx.init(gradients), gradients)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-1.9 * 0.6, -1.9 * 0.8], rtol=1e-6)


def test_published_learning_rate_falls_each_40_epochs_to_its_floor():
    rate = schedules.create_learning_rate("step", peak=1e-3, every=40, floor=1e-7, epochs=400, steps_per_epoch=8)
    at = {epoch: float(rate(epoch * 8 + 7)) for epoch in (0, 39, 40, 79, 80, 160, 399)}
    expected = {0: 1e-3, 39: 1e-3, 40: 1e-4, 79: 1e-4, 80: 1e-5, 160: 1e-7, 399: 1e-7}
    np.testing.assert_allclose(list(at.values()), list(expected.values()), rtol=1e-5)


def test_drops_of_the_step_schedule_end_at_its_floor():
    rate = schedules.create_learning_rate("step", peak=3.0, every=2, floor=0.25, epochs=6, steps_per_epoch=10)
    np.testing.assert_allclose([rate(19), rate(20), rate(39), rate(59)], [3, 0.3, 0.3, 0.25], rtol=1e-6)


def test_cosine_learning_rate_with_warm_up():
    rate = schedules.create_learning_rate("cosine", peak=2.0, floor=0.0, warmup_share=0.2, epochs=5, steps_per_epoch=4)
    expected = [0.0, 1.0, 2.0, 1.0, 0.0]  # warm-up of 4 steps, then half a cosine of 16
    np.testing.assert_allclose([rate(0), rate(2), rate(4), rate(12), rate(20)], expected, atol=1e-6)
    assert schedules.create_learning_rate("cosine", peak=2.0, epochs=5, steps_per_epoch=4)(0) == 2.0
    # A run of one step has no warm-up, and a long one leaves a step.
    assert schedules.create_learning_rate("cosine", peak=2.0, warmup_share=0.6, epochs=1, steps_per_epoch=1)(0) == 2.0
    assert schedules.create_learning_rate("cosine", peak=2.0, warmup_share=0.2, epochs=1, steps_per_epoch=1)(0) == 2.0


@pytest.mark.parametrize(
    "create, message",
    [
        (lambda: optimizers.create_optimizer("rmsprop", 0.1), "'rmsprop' must be one of"),
        (lambda: optimizers.create_optimizer("sgd", 0.1, weight_decay=-1.0), "weight_decay=-1.0 must be at least 0"),
        (lambda: optimizers.create_optimizer("sgd", 0.1, clip_norm=-1.0), "clip_norm=-1.0 must be at least 0"),
        (
            lambda: schedules.create_learning_rate("step", peak=1, epochs=9, steps_per_epoch=1, warmup_share=0.1),
            "warmup_share=0.1 must be 0 with schedule='step'; set schedule='cosine' for a warm-up.",
        ),
        (
            lambda: schedules.create_learning_rate("linear", peak=1, epochs=1, steps_per_epoch=1),
            "'linear' must",
        ),
        (
            lambda: schedules.create_learning_rate("cosine", peak=1, warmup_share=1.0, epochs=3, steps_per_epoch=1),
            "warmup_share=1.0 must be from 0 to 0.99",
        ),
    ],
)
def test_impossible_options_are_refused(create, message):
    with pytest.raises(ValueError, match=message):
        create()
