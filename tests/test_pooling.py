"""WILDCAT pooling by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.models import heads, pooling

MAPS = jnp.asarray([[3.0, 1.0], [9.0, 5.0], [7.0, 2.0]]).reshape(1, 3, 2, 1)  # sorted: 9 7 5 3 2 1


@pytest.mark.parametrize(
    "k, count",
    [
        (0.3, 2),
        (0.25, 2),
        (0.41, 2),
        (0.42, 3),
        (0, 0),
        (1, 1),
        (4, 4),
        (99, 6),
    ],  # 0.25 * 6 = 1.5 and 2.5 round to even
)
def test_places(k, count):
    assert pooling.count_locations(k, 6) == count


@pytest.mark.parametrize("k", [-0.1, 1.5, float("nan"), float("inf")])
def test_impossible_places_are_refused(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        pooling.count_locations(k, 6)


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(k_max=1), 9),
        (dict(k_max=0.5), 7),  # 9 7 5
        (dict(k_max=0.01), 9),  # never fewer than 1
        (dict(k_max=2, k_min=2, alpha=0.0), 8),
        (dict(k_max=2, k_min=2, alpha=1.0), (8 + 1.5) / 2),
        (dict(k_max=2, k_min=0, alpha=1.0), 8),
        (dict(k_max=2, k_min=0.01, alpha=1.0), (8 + 1) / 2),  # never fewer than 1
        (dict(k_max=2, k_min=2, alpha=0.6), (8 + 0.6 * 1.5) / 2),
    ],
)
def test_pooling(options, expected):
    np.testing.assert_allclose(pooling.wildcat_pooling(MAPS, **options), [[expected]], rtol=1e-6)


def test_dropout_drops_sorted_values_and_keeps_the_mean():
    keys = jax.random.split(jax.random.key(0), 4000)
    maps = jnp.tile(MAPS, (4000, 1, 1, 1))
    scores = np.asarray(pooling.wildcat_pooling(maps, k_max=2, dropout=0.75, sample_keys=keys))
    assert set(np.unique(scores)) == {0.0, 14.0, 18.0, 32.0}  # 7 and 9, each 0 or times 4, halved
    np.testing.assert_allclose(scores.mean(), 8, atol=0.4)
    np.testing.assert_allclose((scores == 0).mean(), 0.75**2, atol=0.03)


def test_dropout_of_an_image_depends_on_its_key_alone():
    keys = jax.random.split(jax.random.key(3), 8)
    maps = jax.random.normal(jax.random.key(4), (8, 4, 4, 3))
    together = pooling.wildcat_pooling(maps, k_max=5, dropout=0.5, sample_keys=keys)
    alone = pooling.wildcat_pooling(maps[5:6], k_max=5, dropout=0.5, sample_keys=keys[5:6])
    np.testing.assert_allclose(together[5:6], alone, rtol=1e-6)


def test_head_averages_modalities():
    head = heads.WildcatHead(num_classes=2, modalities=3, k_max=1)
    features = jax.random.normal(jax.random.key(0), (1, 2, 2, 5))
    variables = head.init(jax.random.key(1), features)
    logits, class_maps = head.apply(variables, features)
    dense = variables["params"]["modality_maps"]
    maps = np.einsum("bhwk,kc->bhwc", features, dense["kernel"]) + dense["bias"]
    expected = np.stack([maps[..., 0:3].mean(-1), maps[..., 3:6].mean(-1)], axis=-1)  # channel c * M + m
    np.testing.assert_allclose(class_maps, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, expected.max(axis=(1, 2)), rtol=1e-5, atol=1e-6)
