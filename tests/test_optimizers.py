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


def _sgd(momentum, nesterov, decay, rate=0.1):
    weights, buffer = np.array([1.0, 2.0]), None
    for gradient in GRADIENTS:
        gradient = gradient + decay * weights
        buffer = gradient if buffer is None else momentum * buffer + gradient
        weights = weights - rate * (gradient + momentum * buffer if nesterov else buffer)
    return weights


@pytest.mark.parametrize(
    "momentum, nesterov, decay", [(0.9, True, 1e-2), (0.9, False, 0.0), (0.9, False, 1e-2), (0.0, False, 0.1)]
)
def test_sgd(momentum, nesterov, decay):
    tx = optimizers.create_optimizer("sgd", 0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    np.testing.assert_allclose(_run(tx), _sgd(momentum, nesterov, decay), rtol=1e-6)


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


@pytest.mark.parametrize("decayed, bias", [("all", 0.9), ("kernels", 1.0)])
def test_weight_decay_of_kernels_only(decayed, bias):
    tx = optimizers.create_optimizer("sgd", 1.0, weight_decay=0.1, decayed=decayed, nesterov=False, momentum=0.0)
    params = {"layer": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(params["layer"]["kernel"] + updates["layer"]["kernel"], 0.9)
    np.testing.assert_allclose(params["layer"]["bias"] + updates["layer"]["bias"], bias)


@pytest.mark.parametrize("kind", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("decayed", optimizers.DECAYED)
def test_frozen_parameters_do_not_decay(kind, decayed):
    tx = optimizers.create_optimizer(kind, 1.0, weight_decay=0.1, decayed=decayed)
    params = {"trunk": {"frozen": {"kernel": jnp.ones(2)}, "other": {"kernel": jnp.ones(2)}}}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert (updates["trunk"]["frozen"]["kernel"] == 0).all() and (updates["trunk"]["other"]["kernel"] < 0).all()


def test_clipping_by_global_norm():
    tx = optimizers.create_optimizer("sgd", 1.0, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=1.0)
    gradients = {"a": jnp.asarray([3.0]), "b": jnp.asarray([4.0])}
    updates, _ = tx.update(gradients, tx.init(gradients), gradients)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-0.6, -0.8], rtol=1e-6)


def test_published_learning_rate_falls_each_40_epochs_to_its_floor():
    rate = schedules.create_learning_rate(
        "step", peak=1e-3, factor=0.1, every=40, floor=1e-7, epochs=400, steps_per_epoch=8
    )
    at = {epoch: float(rate(epoch * 8 + 7)) for epoch in (0, 39, 40, 79, 80, 160, 399)}
    expected = {0: 1e-3, 39: 1e-3, 40: 1e-4, 79: 1e-4, 80: 1e-5, 160: 1e-7, 399: 1e-7}
    np.testing.assert_allclose(list(at.values()), list(expected.values()), rtol=1e-5)


def test_multistep_learning_rate():
    rate = schedules.create_learning_rate(
        "multistep", peak=1.0, factor=0.5, milestones=(2, 5), floor=0.3, epochs=9, steps_per_epoch=10
    )
    np.testing.assert_allclose([rate(19), rate(20), rate(49), rate(50)], [1.0, 0.5, 0.5, 0.3], rtol=1e-6)


@pytest.mark.parametrize("factor, expected", [(1.0, [3, 3, 3]), (0.5, [3, 1.5, 0.75]), (0.0, [3, 0.25, 0.25])])
def test_factors_of_the_step_schedule(factor, expected):
    rate = schedules.create_learning_rate(
        "step", peak=3.0, factor=factor, every=2, floor=0.25, epochs=6, steps_per_epoch=10
    )
    np.testing.assert_allclose([rate(19), rate(39), rate(59)], expected, rtol=1e-6)


def test_cosine_learning_rate_with_warm_up():
    rate = schedules.create_learning_rate("cosine", peak=2.0, floor=0.0, warmup_epochs=1, epochs=5, steps_per_epoch=4)
    expected = [0.0, 1.0, 2.0, 1.0, 0.0]  # warm-up of 4 steps, then half a cosine of 16
    np.testing.assert_allclose([rate(0), rate(2), rate(4), rate(12), rate(20)], expected, atol=1e-6)
    assert schedules.create_learning_rate("cosine", peak=2.0, epochs=5, steps_per_epoch=4)(0) == 2.0
    as_share = schedules.create_learning_rate(
        "cosine", peak=2.0, floor=0.0, warmup_share=0.2, epochs=5, steps_per_epoch=4
    )
    assert [float(as_share(step)) for step in range(21)] == [float(rate(step)) for step in range(21)]
    # A run of one step has no warm-up, and a long one leaves a step.
    assert schedules.create_learning_rate("cosine", peak=2.0, warmup_share=0.6, epochs=1, steps_per_epoch=1)(0) == 2.0
    assert schedules.create_learning_rate("cosine", peak=2.0, warmup_share=0.2, epochs=1, steps_per_epoch=1)(0) == 2.0


@pytest.mark.parametrize(
    "create, message",
    [
        (lambda: optimizers.create_optimizer("rmsprop", 0.1), "'rmsprop' must be one of"),
        (lambda: optimizers.create_optimizer("sgd", 0.1, weight_decay=-1.0), "weight_decay=-1.0 must be at least 0"),
        (lambda: optimizers.create_optimizer("sgd", 0.1, clip_norm=-1.0), "clip_norm=-1.0 must be at least 0"),
        (lambda: optimizers.create_optimizer("sgd", 0.1, decayed="some"), "decayed='some'"),
        *(
            (
                lambda kind=kind, warmup=warmup: schedules.create_learning_rate(
                    kind, peak=1, epochs=9, steps_per_epoch=1, **warmup
                ),
                f"must be 0 with schedule='{kind}'",
            )
            for kind in ("step", "multistep")
            for warmup in ({"warmup_epochs": 1}, {"warmup_share": 0.1})
        ),
        (
            lambda: schedules.create_learning_rate("step", peak=1, factor=-1.0, epochs=1, steps_per_epoch=1),
            "factor=-1.0 must be from 0 to 1",
        ),
        (
            lambda: schedules.create_learning_rate("linear", peak=1, epochs=1, steps_per_epoch=1),
            "'linear' must",
        ),
        (
            lambda: schedules.create_learning_rate("multistep", peak=1, milestones=(2.5,), epochs=3, steps_per_epoch=1),
            r"milestones=\(2.5,\) must be whole numbers of at least 0",
        ),
        (
            lambda: schedules.create_learning_rate("cosine", peak=1, warmup_epochs=3, epochs=3, steps_per_epoch=1),
            "warmup_epochs=3",
        ),
        (
            lambda: schedules.create_learning_rate(
                "cosine", peak=1, warmup_epochs=1, warmup_share=0.1, epochs=3, steps_per_epoch=1
            ),
            "warmup_share=0.1 and warmup_epochs=1 exclude each other",
        ),
    ],
)
def test_impossible_options_are_refused(create, message):
    with pytest.raises(ValueError, match=message):
        create()
