"""Heads and their poolings, against NumPy and by hand."""

import jax
import jax.numpy as jnp
from minmax_jax.configs import synthetic
import numpy as np
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.models import heads, pooling
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib

FEATURES = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
HEADS = [heads.WildcatHead, heads.MeanHead, heads.MaxHead, heads.LogSumExpHead, heads.AttentionHead]


def _apply(head, features=FEATURES):
    """(scores, class maps, parameters) of a head whose bias is not 0."""
    variables = head.init(jax.random.key(1), features)
    dense = variables["params"]["modality_maps"]
    dense["bias"] = jnp.arange(1.0, 1 + len(dense["bias"]))
    return *head.apply(variables, features), variables["params"]


def _maps(params, features=FEATURES):
    return features @ np.asarray(params["modality_maps"]["kernel"]) + np.asarray(params["modality_maps"]["bias"])


@pytest.mark.parametrize(
    ("head", "pool"),
    [
        (heads.MeanHead(3), lambda maps: maps.mean((1, 2))),
        (heads.MaxHead(3), lambda maps: maps.max((1, 2))),
        (heads.LogSumExpHead(3), lambda maps: np.log(np.exp(5.0 * maps).mean((1, 2))) / 5),
    ],
)
def test_scores_are_poolings_of_the_maps(head, pool):
    scores, class_maps, params = _apply(head)
    np.testing.assert_allclose(class_maps, _maps(params), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores, pool(_maps(params).astype(float)), rtol=1e-5, atol=1e-5)


def test_attention_weighs_the_evidence_of_each_location():
    scores, class_maps, params = _apply(heads.AttentionHead(3, width=7))
    hidden = np.tanh(FEATURES @ np.asarray(params["attention_hidden"]["kernel"]))
    assert params["attention_hidden"]["kernel"].shape == (5, 7)
    relevance = np.exp(hidden @ np.asarray(params["attention"]["kernel"]))
    attention = relevance / relevance.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(attention.sum((1, 2, 3)), 1)
    np.testing.assert_allclose(class_maps, attention * _maps(params), rtol=1e-4, atol=1e-6)
    # As published: the layer of the classes reads the mean of the features, weighted by attention.
    mean = (attention * FEATURES).sum((1, 2))
    np.testing.assert_allclose(scores, _maps(params, mean), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_all_heads_have_one_interface(head, dtype):
    variables = head(3, dtype=dtype).init(jax.random.key(0), FEATURES)
    keys = jax.random.split(jax.random.key(2), 2)
    scores, class_maps = head(3, dtype=dtype).apply(variables, FEATURES, keys)
    assert (scores.shape, class_maps.shape) == ((2, 3), (2, 3, 4, 3))
    assert scores.dtype == class_maps.dtype == jnp.float32


def _options(dropout=0.0):
    config = synthetic.get_config()
    config.model.dropout = dropout
    return options_lib.read(config).model


@pytest.mark.parametrize("head", HEADS)
def test_a_method_can_choose_each_head(head):
    model = creation.create_model(_options(), head, num_classes=3)
    for created in (model.localizer_head, model.classifier_head):
        assert type(created) is head and created.num_classes == 3


@pytest.mark.parametrize("head", HEADS)
def test_dropout_of_a_configuration_reaches_the_head_or_is_refused(head):
    if head in (heads.WildcatHead, heads.MeanHead):
        assert creation.create_model(_options(0.25), head, num_classes=3).localizer_head.dropout == 0.25
        return
    message = f"^config.model.dropout=0.25 is not for {head.__name__}; set it to 0.$"
    with pytest.raises(OptionError, match=message):
        creation.create_model(_options(0.25), head, num_classes=3)


MAPS = jnp.asarray([[3.0, 1.0], [9.0, 5.0], [7.0, 2.0]]).reshape(1, 3, 2, 1)


def test_the_gradient_of_a_maximum_is_that_of_one_location():
    head = heads.MaxHead(1)
    params = {"modality_maps": {"kernel": jnp.eye(1), "bias": jnp.zeros(1)}}
    gradient = jax.grad(lambda maps: head.apply({"params": params}, maps)[0].sum())(MAPS)
    np.testing.assert_array_equal(gradient[0, ..., 0], [[0, 0], [1, 0], [0, 0]])


def test_the_gradient_of_a_mean_is_the_same_everywhere():
    gradient = jax.grad(lambda maps: pooling.mean_pooling(maps).sum())(MAPS)
    np.testing.assert_allclose(gradient, 1 / 6)


def test_the_gradient_of_log_sum_exp_is_a_softmax():
    gradient = jax.grad(lambda maps: pooling.log_sum_exp_pooling(maps, sharpness=0.5).sum())(MAPS)
    weights = np.exp(0.5 * np.asarray(MAPS))
    np.testing.assert_allclose(gradient, weights / weights.sum(), rtol=1e-5)


@pytest.mark.parametrize(("sharpness", "expected"), [(1e-3, 27 / 6), (1.0, 7.35440), (1e3, 9.0)])
def test_log_sum_exp_lies_between_mean_and_maximum(sharpness, expected):
    """For r = 1: log((e^9 + e^7 + e^5 + e^3 + e^2 + e) / 6)."""
    found = pooling.log_sum_exp_pooling(MAPS, sharpness=sharpness)
    np.testing.assert_allclose(found, [[expected]], rtol=2e-3)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_sharpness_is_refused(sharpness):
    with pytest.raises(OptionError, match=f"sharpness={sharpness} must be above 0 and finite"):
        pooling.log_sum_exp_pooling(MAPS, sharpness=sharpness)


def test_dropout_of_a_mean_keeps_it_and_depends_on_the_key_of_the_image_alone():
    keys, maps = jax.random.split(jax.random.key(0), 4000), jnp.tile(MAPS, (4000, 1, 1, 1))
    scores = np.asarray(pooling.mean_pooling(maps, dropout=0.5, sample_keys=keys))
    np.testing.assert_allclose(scores.mean(), 27 / 6, atol=0.1)
    np.testing.assert_allclose(scores.std(), np.sqrt((MAPS**2).sum()) / 6, rtol=0.05)
    alone = pooling.mean_pooling(maps[5:6], dropout=0.5, sample_keys=keys[5:6])
    np.testing.assert_allclose(alone, scores[5:6], rtol=1e-6)
