"""Calibration: percentiles by hand, Otsu against all thresholds, and what holds for any mask."""

import numpy as np
import pytest

from minmax_jax.refinement import calibration


def test_percentiles_by_hand():
    """Of the values 0 to 100 the 5th percentile is 5, the 95th 95."""
    mask = np.random.default_rng(0).permutation(101).reshape(1, 101) / 200
    found = calibration.between_percentiles(mask)
    np.testing.assert_allclose(found, np.clip((mask * 200 - 5) / 90, 0, 1), atol=1e-6)
    np.testing.assert_allclose(calibration.between_percentiles(mask, low=0, high=100), mask * 2, atol=1e-6)


def _between_variance(mask, foreground):
    share = np.mean(foreground)
    return share * (1 - share) * (mask[foreground].mean() - mask[~foreground].mean()) ** 2


def _bimodal(rng):
    low, high = rng.normal(0.35, 0.03, 150), rng.normal(0.6, 0.05, 106)
    return rng.permutation(np.concatenate([low, high])).reshape(16, 16).astype(np.float32)


@pytest.mark.parametrize("draw", [_bimodal, lambda rng: rng.uniform(0.2, 0.9, (16, 16)).astype(np.float32)])
@pytest.mark.parametrize("seed", range(3))
def test_otsu_is_the_best_of_all_thresholds(draw, seed):
    mask = draw(np.random.default_rng(seed)).astype(np.float64)
    best = max(_between_variance(mask, mask >= threshold) for threshold in np.unique(mask)[1:])
    found = calibration.at_otsu(mask.astype(np.float32)) >= 0.5
    # The thresholds tried are 255, the values 256: a pixel may lie on the other side.
    assert 0.995 * best <= _between_variance(mask, found) <= best + 1e-12


def test_otsu_of_two_values_lies_between_them():
    mask = np.array([[0.4, 0.4, 0.4, 0.45]], np.float32)
    np.testing.assert_array_equal(calibration.at_otsu(mask), [[0, 0, 0, 1]])


@pytest.mark.parametrize("calibrate", [calibration.between_percentiles, calibration.at_otsu])
def test_of_a_constant_mask_nothing_is_foreground(calibrate):
    for value in (0.0, 0.3, 1.0):
        found = calibrate(np.full((3, 5), value, np.float32))
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
