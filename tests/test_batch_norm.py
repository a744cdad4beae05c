"""Batch norm: what it computes, its gradients, and its running statistics."""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.models import batch_norm


def _apply(features, scale, bias, axis_name=None):
    norm = batch_norm.BatchNorm(
        len(scale), use_running_average=False, axis_name=axis_name, dtype=jnp.promote_types(features.dtype, "bfloat16")
    )
    stats = {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    return norm.apply(variables, features, mutable="batch_stats")[0]


def _by_definition(features, scale, bias):
    mean, variance = jnp.mean(features, (0, 1, 2)), jnp.var(features, (0, 1, 2))
    return scale * (features - mean) * lax.rsqrt(variance + 1e-5) + bias


def _inputs(dtype, channels):
    rng = np.random.default_rng(0)
    shapes = (4, 5, 3, channels), (channels,), (channels,), (4, 5, 3, channels)
    features, scale, bias, cotangents = (jnp.asarray(rng.normal(1.0, 1.5, shape), "float64") for shape in shapes)
    kept = jnp.promote_types(dtype, "float32")
    return features.astype(dtype), scale.astype(kept), bias.astype(kept), cotangents.astype(dtype)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-13), ("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("channels", [3, 40])
def test_value_and_gradients_are_those_of_the_definition(dtype, tolerance, channels):
    with jax.enable_x64(True):
        *inputs, cotangents = _inputs(dtype, channels)
        outputs, backward = jax.vjp(_apply, *inputs)
        doubles = [array.astype("float64") for array in inputs]
        expected, expected_backward = jax.vjp(_by_definition, *doubles)
        gradients = backward(cotangents)
        assert [array.dtype for array in (outputs, *gradients)] == [dtype, *(array.dtype for array in inputs)]
        for actual, wanted in zip((outputs, *gradients), (expected, *expected_backward(cotangents.astype("float64")))):
            error = np.abs(actual.astype("float64") - wanted).max()
            assert error <= tolerance * np.abs(wanted).max()


def test_devices_do_together_what_one_does():
    with jax.enable_x64(True):
        features, scale, bias, cotangents = _inputs("float64", 6)

        def differentiate(apply, features, cotangents):
            outputs, backward = jax.vjp(apply, features, scale, bias)
            return outputs, *backward(cotangents)

        outputs, to_features, *to_parameters = differentiate(_apply, features, cotangents)
        shares = (array[:, None] for array in (features, cotangents))
        together = functools.partial(differentiate, functools.partial(_apply, axis_name="batch"))
        mapped = jax.pmap(together, axis_name="batch")(*shares)
        np.testing.assert_allclose(mapped[0][:, 0], outputs, atol=1e-12)
        np.testing.assert_allclose(mapped[1][:, 0], to_features, atol=1e-12)
        for shared, whole in zip(mapped[2:], to_parameters):
            np.testing.assert_allclose(shared.sum(axis=0), whole, atol=1e-12)


@pytest.mark.parametrize("unbiased, correction", [(False, 1.0), (True, 12 / 11)])
def test_running_variance(unbiased, correction):
    """Of 3 x 2 x 2 values a channel; what normalizes them is the biased variance in both cases."""
    features = np.random.default_rng(0).normal(5.0, 2.0, (3, 2, 2, 4)).astype(np.float32)
    norm = batch_norm.BatchNorm(4, unbiased_variance=unbiased, use_running_average=False, momentum=0.9)
    variables = norm.init(jax.random.key(0), features)
    outputs, updated = norm.apply(variables, features, mutable="batch_stats")
    variance = features.var(axis=(0, 1, 2))
    expected = 0.9 * 1 + 0.1 * correction * variance
    np.testing.assert_allclose(updated["batch_stats"]["var"], expected, rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * features.mean(axis=(0, 1, 2)), rtol=1e-5)
    centred = features - features.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(outputs, centred / np.sqrt(variance + 1e-5), atol=1e-5)


def test_running_variance_over_devices_counts_all_values():
    features = np.random.default_rng(0).normal(5.0, 2.0, (4, 3, 2, 2, 4)).astype(np.float32)
    norm = batch_norm.BatchNorm(4, unbiased_variance=True, use_running_average=False, momentum=0.9, axis_name="batch")
    variables = norm.init(jax.random.key(0), features[0])

    def apply(features):
        return norm.apply(variables, features, mutable="batch_stats")[1]["batch_stats"]["var"]

    variance = jax.pmap(apply, axis_name="batch")(features)[0]
    np.testing.assert_allclose(variance, 0.9 + 0.1 * 48 / 47 * features.var(axis=(0, 1, 2, 3)), rtol=1e-5)
