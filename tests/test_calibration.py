"""Calibration: percentiles by hand, and what holds for any mask."""

import numpy as np
import pytest

from minmax_jax.refinement import calibration


def test_percentiles_by_hand():
    """Of the values 0 to 100 the 5th percentile is 5, the 95th 95."""
    mask = np.random.default_rng(0).permutation(101).reshape(1, 101) / 200
    found = calibration.between_percentiles(mask)
    np.testing.assert_allclose(found, np.clip((mask * 200 - 5) / 90, 0, 1), atol=1e-6)
    np.testing.assert_allclose(calibration.between_percentiles(mask, low=0, high=100), mask * 2, atol=1e-6)


def _bimodal(rng):
    low, high = rng.normal(0.35, 0.03, 150), rng.normal(0.6, 0.05, 106)
    return rng.permutation(np.concatenate([low, high])).reshape(16, 16).astype(np.float32)


def test_of_a_constant_mask_nothing_is_foreground():
    for value in (0.0, 0.3, 1.0):
        found = calibration.between_percentiles(np.full((3, 5), value, np.float32))
        assert found.dtype == np.float32 and (found == 0).all()


@pytest.mark.parametrize("calibrate", calibration.CALIBRATIONS.values())
@pytest.mark.parametrize("seed", range(3))
def test_calibration_keeps_the_order_of_pixels(calibrate, seed):
    rng = np.random.default_rng(seed)
    neighbours = np.float32([0.5, np.nextafter(np.float32(0.5), np.float32(1))])  # as close as two masks can be
    for mask in (_bimodal(rng), rng.beta(0.1, 0.1, (9, 13)).astype(np.float32), rng.choice(neighbours, (4, 6))):
        found = calibrate(mask)
        assert found.shape == mask.shape and found.dtype == np.float32
        assert found.min() >= 0 and found.max() <= 1
        assert (np.diff(found.ravel()[np.argsort(mask, axis=None, kind="stable")]) >= 0).all()
