"""Declared priors: a hole that is filled, a gland that is found, and images without any contrast."""

import types

import numpy as np
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.refinement import cache, priors
from minmax_jax.refinement.options import RefineOptions
from minmax_jax.runs import second_stage
from tests import splits


def test_holes_are_filled_to_their_lowest_way_out():
    heights = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [0, 5, 5, 5, 5, 0],
            [0, 5, 1, 2, 3, 0],
            [0, 5, 5, 5, 5, 0],
            [0, 0, 0, 0, 0, 0],
        ],
        np.float32,
    )
    expected = heights.copy()
    expected[2, 2:4] = 3
    np.testing.assert_array_equal(priors.fill_holes(heights), expected)
    np.testing.assert_array_equal(priors.fill_holes(5 - heights), np.full((5, 6), 5))  # a bowl, full to its rim


def test_a_ring_of_nuclei_is_a_gland_and_single_nuclei_are_not():
    rows, columns = np.mgrid[:128, :192]
    image = np.full((128, 192, 3), (230, 170, 210), np.uint8)
    radius = np.hypot(rows - 64, columns - 56)
    image[(radius > 30) & (radius < 40)] = (90, 50, 140)
    image[(columns > 110) & (rows % 8 < 4) & (columns % 8 < 4)] = (90, 50, 140)
    found = priors.gland_map(image)
    assert found.shape == (128, 192) and found.dtype == np.float32
    assert (found[radius < 36] >= 0.5).mean() > 0.95
    assert (found[:, 124:] >= 0.5).mean() < 0.05
    assert 0.3 <= (found >= 0.5).mean() <= 0.72


def test_the_threshold_is_otsus_within_the_allowed_shares():
    """By hand: two groups, 4 and 6 of 10; the greater starts at 3. With 1 and 9, the share would be 0.9."""
    values = np.array([0, 0, 1, 1, 3, 3, 4, 4, 4, 5], float)
    np.testing.assert_array_equal(priors._scale_at_threshold(values) >= 0.5, values >= 3)
    values = np.array([-90, 0, 1, 2, 3, 4, 5, 6, 7, 8], float)
    assert (priors._scale_at_threshold(values) >= 0.5).sum() == 7


def test_an_image_without_contrast_says_nothing():
    np.testing.assert_array_equal(priors.gland_map(np.full((64, 64, 3), 200, np.uint8)), np.full((64, 64), 0.5))


def test_an_unknown_prior_is_refused():
    with pytest.raises(UserError, match="prior='stars' must be one of"):
        RefineOptions(prior="stars")


def test_seeds_come_from_the_prior_and_not_from_the_first_stage(monkeypatch):
    """A prior that knows one pixel of the map: every foreground seed is there."""

    def left_corner(image):
        values = np.zeros(image.shape[:2], np.float32)
        values[:2, :2] = 1
        return values

    monkeypatch.setitem(priors.PRIORS, "glands", left_corner)
    options = RefineOptions(prior="glands")
    run = types.SimpleNamespace(
        options=types.SimpleNamespace(refine=options)
    )  # nothing of the first stage can be asked
    (group,) = cache.collect(
        second_stage._create_masks_fn(run, {}),
        lambda images: {4: np.zeros((len(images), 8, 8, 3), np.float32)},
        splits.make_split([(32, 32)] * 3),
        options=options,
        batch_size=2,
        seed=0,
    )
    np.testing.assert_array_equal(group.foreground, np.ones((3, 256)))
    np.testing.assert_array_equal(group.background[:, 0], 0)
