"""Random masks: how large, how smooth, and that each depends on its key alone."""

import jax
import jax.numpy as jnp
import numpy as np

from minmax_jax.minmax import random_masks


def _draw(count, size=(24, 32), **options):
    return np.asarray(random_masks.random_masks(jax.random.split(jax.random.key(0), count), size, **options))


def test_areas_are_uniform():
    areas = (_draw(2000) > 0.5).mean(axis=(1, 2, 3))
    quantiles = np.quantile(areas, np.linspace(0, 1, 11))
    np.testing.assert_allclose(quantiles, np.linspace(*random_masks.AREAS, 11), atol=0.03)


def test_regions_are_smooth():
    """Neighbours differ by little, pixels far apart by much: a blob is about a quarter of the image's side."""
    masks = _draw(200)
    assert np.abs(np.diff(masks, axis=1)).mean() < 0.06
    assert np.abs(masks[:, 12:] - masks[:, :12]).mean() > 0.25


def test_edges_are_those_of_the_localizer():
    """The same map with another steepness: the logit is in proportion."""
    soft, steep = (_draw(3, omega=omega) for omega in (4.0, 8.0))
    np.testing.assert_allclose(np.log(steep / (1 - steep)), 2 * np.log(soft / (1 - soft)), rtol=1e-3, atol=1e-4)


def test_a_mask_depends_on_its_key_alone():
    keys = jax.random.split(jax.random.key(1), 4)
    together = random_masks.random_masks(keys, (8, 8))
    for key, mask in zip(keys, together):
        np.testing.assert_allclose(random_masks.random_masks(key[None], (8, 8))[0], mask, rtol=1e-5)
    assert np.std(together, axis=0).min() > 0.01


def test_masks_have_the_type_that_is_asked_for():
    assert _draw(1, dtype=jnp.bfloat16).dtype == jnp.bfloat16 and _draw(1).dtype == np.float32
