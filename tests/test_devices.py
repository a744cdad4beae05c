"""Devices and micro-batches: the same losses and the same state however a batch is cut.

In double precision: where a pixel is erased or not by a rounding error, single precision can go either way.
"""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax.distributed import devices as devices_lib
from minmax_jax.distributed import engines
from minmax_jax.minmax import inference
from minmax_jax.training import state as state_lib
from tests import networks

TX = optax.sgd(0.05, momentum=0.9)
STEPS = 3
_FURTHER = {
    "background": "ratio",
    "background_gradient": "mask",
    "whole_weight": 0.3,
    "random_weight": 0.2,
    "area_weight": 0.7,
    "area_target": 0.4,
    "range": "percentiles",
}
# (num_erasures, mask_gradient, mask_normalization, further options)
CASES = [
    (4, "stop", "batch", {}),
    (2, "flow", "image", _FURTHER),
    pytest.param((0, "stop", "batch", {}), marks=pytest.mark.slow),
    pytest.param((0, "stop", "image", {}), marks=pytest.mark.slow),
    pytest.param((4, "stop", "image", {}), marks=pytest.mark.slow),
    pytest.param((4, "flow", "batch", {}), marks=pytest.mark.slow),
    pytest.param((4, "flow", "image", {}), marks=pytest.mark.slow),
]


class PlainTrunk(nn.Module):
    """Without batch norm: no image knows of another."""

    @nn.compact
    def __call__(self, images, *, train):
        del train
        features = nn.Conv(4, (4, 4), strides=(4, 4), padding="VALID", dtype=jnp.float64)(images)
        return nn.relu(features)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def _model(norm_axis=None):
    return networks.tiny_model(norm_axis=norm_axis, dropout=0.3, dtype=jnp.float64)


@functools.cache
def _start(model):
    state = mm.create_train_state(jax.random.key(0), model=model, tx=TX, image_size=(32, 32))
    variables = jax.tree.map(jnp.float64, state.variables)
    return state.replace(**variables, opt_state=TX.init(variables["params"]))


def _objective(num_erasures, mask_gradient, mask_normalization, further=None):
    return networks.objective(
        num_erasures=num_erasures,
        gradient=mask_gradient,
        normalization=mask_normalization,
        background_weight=0.3,
        **(further or {}),
    )


def _train(model, objective, *, start=None, devices=1, accumulation=1, engine="pmap"):
    """(metrics of each step, the last state) of steps on one batch; dropout goes by a place in that batch."""
    step = functools.partial(mm.train_step, model=model, tx=TX, objective=objective, accumulation=accumulation)
    state = jax.tree.map(jnp.copy, start or _start(_model()))  # The steps of several devices eat theirs.
    batch = {"images": np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)), "labels": np.arange(8) % 3}
    if devices > 1:
        assert devices == jax.local_device_count()
        state = devices_lib.replicate(state)
        step = engines.ENGINES[engine].parallelize_train_step(step)
    else:
        step = jax.jit(step)
    metrics = []
    for _ in range(STEPS):
        state, found = step(state, batch)
        metrics.append(jax.tree.map(np.asarray, found))
    return metrics, jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


@functools.cache
def _on_one_device(objective, **options):
    """What all engines are compared with."""
    return _train(_model(), objective, **options)


def _assert_same(found, expected):
    """Metrics are means in single precision, the state is in double."""
    chex.assert_trees_all_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(found[1], expected[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("engine", engines.ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_four_devices_with_cross_replica_norm_do_what_one_does(case, engine):
    objective = _objective(*case)
    expected = _on_one_device(objective)
    assert all((metrics["num_passes"] > 1) == (case[0] > 0) for metrics in expected[0])
    _assert_same(_train(_model(devices_lib.AXIS), objective, devices=4, engine=engine), expected)


@pytest.mark.parametrize("engine", engines.ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_four_devices_with_a_norm_each_do_what_four_micro_batches_do_on_one(case, engine):
    objective = _objective(*case)
    expected = _on_one_device(objective, accumulation=4)
    _assert_same(_train(_model(), objective, devices=4, engine=engine), expected)


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_prediction_on_four_devices_is_that_on_one(engine):
    model = _model()
    variables = state_lib.inference_variables(_start(model))
    images = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)
    predict = functools.partial(inference.predict, model=model, objective=_objective(0, "stop", "image"))
    found = engines.ENGINES[engine].parallelize_predict(predict)(devices_lib.replicate(variables), images)
    chex.assert_trees_all_close(found, jax.jit(predict)(variables, images), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_four_devices_with_two_micro_batches_each_do_what_eight_do_on_one():
    objective = _objective(4, "stop", "batch")
    found = _train(_model(), objective, devices=4, accumulation=2)
    _assert_same(found, _train(_model(), objective, accumulation=8))


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[5]])
def test_without_batch_norm_micro_batches_do_what_the_whole_batch_does(case):
    """Erasing goes on as long as any image of the whole batch needs it, and masks are normalised over all of it."""
    head = networks.wildcat(dropout=0.3, dtype=jnp.float64)
    model, objective = mm.create_model(PlainTrunk(), num_classes=3, head=head), _objective(*case)
    expected = _train(model, objective, start=_start(model))
    _assert_same(_train(model, objective, start=_start(model), accumulation=4), expected)


@pytest.mark.slow
def test_batch_norm_sees_a_micro_batch():
    """By definition: normalized by itself, another result; the running mean is that of the whole batch."""
    objective = _objective(0, "stop", "image")
    (whole, _), (parts, _) = (_train(_model(), objective, accumulation=count) for count in (1, 2))
    assert abs(whole[0]["loss"] - parts[0]["loss"]) > 1e-4
    step = functools.partial(mm.train_step, model=_model(), tx=TX, objective=objective)
    batch = {"images": np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)), "labels": np.arange(8) % 3}
    means, variances = zip(
        *(
            after["whole"]["trunk"]["norm"].values()
            for after in (
                jax.jit(functools.partial(step, accumulation=count))(_start(_model()), batch)[0].batch_stats
                for count in (1, 2)
            )
        )
    )
    np.testing.assert_allclose(*means, rtol=1e-9)
    assert np.all(variances[0] > variances[1])


@pytest.mark.parametrize("gradient", ["stop", "flow"])
def test_networks_of_single_precision_train_in_a_program_of_double(gradient):
    model = networks.tiny_model()
    state = mm.create_train_state(jax.random.key(0), model=model, tx=TX, image_size=(32, 32))
    objective = networks.objective(num_erasures=3, loss_weight="trust", gradient=gradient)
    batch = {"images": np.zeros((4, 32, 32, 3), np.uint8), "labels": np.arange(4) % 3}
    step = jax.jit(functools.partial(mm.train_step, model=model, tx=TX, objective=objective))
    assert np.isfinite(step(state, batch)[1]["loss"])


@pytest.mark.parametrize("gradient", ["stop", "flow"])
def test_gradients_that_are_summed_already_are_not_averaged(gradient):
    """With check_vma=True, jax.shard_map sums the gradients of replicated parameters over the devices."""
    model, objective = _model(), networks.objective(num_erasures=2, gradient=gradient)
    step = functools.partial(mm.train_step, model=model, tx=TX, objective=objective, axis_name="devices")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("devices",))
    spec = jax.sharding.PartitionSpec
    sharded = functools.partial(
        jax.shard_map, step, mesh=mesh, in_specs=(spec(), spec("devices")), out_specs=(spec(), spec())
    )
    batch = {"images": jnp.zeros((8, 32, 32, 3)), "labels": jnp.arange(8) % 3}
    with pytest.raises(ValueError, match="axis_name='devices' is that of a jax.shard_map with check_vma=True"):
        jax.jit(sharded())(_start(model), batch)
    jax.eval_shape(sharded(check_vma=False), _start(model), batch)


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="accumulation=3"):
        _train(_model(), mm.Objective(), accumulation=3)
