"""The CRF against plain loops over all pairs of pixels, its limits, and its window against the sum over all pairs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.refinement import crf as crf_lib
from tests import exact_crf

CRF = crf_lib.Crf(num_iterations=2, gaussian_sigma=1.5, bilateral_sigma=2.5, color_sigma=40.0)


def _refine(masks, images, crf=CRF, **changes):
    crf = dataclasses.replace(crf, **changes)
    return np.asarray(jax.jit(functools.partial(crf_lib.refine, crf=crf))(masks, images))


def _random(height=6, width=7, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
    return rng.uniform(0.02, 0.98, (batch, height, width, 1)).astype(np.float32), images


def _loops(mask, image, crf):
    """Mean field of two explicit classes, a pixel and a pair at a time, in double precision."""
    height, width = mask.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    colors = np.array([image[pixel] for pixel in pixels], float)
    kernels = np.zeros((2, len(pixels), len(pixels)))
    for i, first in enumerate(pixels):
        for j, second in enumerate(pixels):
            apart = (first[0] - second[0]) ** 2 + (first[1] - second[1]) ** 2
            unlike = np.sum((colors[i] - colors[j]) ** 2)
            kernels[0, i, j] = np.exp(-apart / (2 * crf.gaussian_sigma**2))
            kernels[1, i, j] = np.exp(-apart / (2 * crf.bilateral_sigma**2) - unlike / (2 * crf.color_sigma**2))
    total = 0
    for kernel, weight in zip(kernels, (crf.gaussian_weight, crf.bilateral_weight)):
        sums = kernel.sum(axis=1)
        total = total + weight * kernel / np.sqrt(np.outer(sums, sums))
    foreground = mask.ravel().astype(float)
    unary = -np.log(np.stack([1 - foreground, foreground]))
    q = np.exp(-unary)
    for _ in range(crf.num_iterations):
        # Potts: a label pays for the pixels that have the other one.
        energy = unary + (total @ q[::-1].T).T
        q = np.exp(-energy) / np.sum(np.exp(-energy), axis=0)
    return q[1].reshape(height, width)


@pytest.mark.parametrize("num_iterations", [1, 3])
def test_equals_loops_over_all_pairs(num_iterations):
    """The window of 3 standard deviations, 7 pixels, holds all of so small an image."""
    masks, images = _random(batch=2)
    crf = dataclasses.replace(CRF, num_iterations=num_iterations)
    expected = [_loops(masks[row, ..., 0], images[row], crf) for row in range(2)]
    np.testing.assert_allclose(_refine(masks, images, crf)[..., 0], expected, atol=2e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_it_runs_in_a_program_of_double_precision(dtype):
    masks, images = _random()
    images = images if dtype == np.uint8 else (images / 127.5 - 1).astype(dtype)
    expected = crf_lib.refine(jnp.asarray(masks, jnp.float32), jnp.asarray(images), crf=CRF)
    with jax.enable_x64(True):
        found = crf_lib.refine(jnp.asarray(masks, jnp.float64), jnp.asarray(images), crf=CRF)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{"num_iterations": 0}, {"gaussian_weight": 0.0, "bilateral_weight": 0.0}])
def test_without_updates_or_weights_the_mask_comes_back(changes):
    masks, images = _random()
    np.testing.assert_allclose(_refine(masks, images, **changes), masks, atol=1e-6)


def test_in_a_uniform_image_both_kernels_are_one():
    masks, images = _random()
    images = np.full_like(images, 90)
    only_gaussian = {"gaussian_sigma": 2.0, "gaussian_weight": 4.0, "bilateral_weight": 0.0}
    only_bilateral = {"bilateral_sigma": 2.0, "gaussian_weight": 0.0, "bilateral_weight": 4.0}
    first = _refine(masks, images, **only_gaussian)
    second = _refine(masks, images, **only_bilateral)
    # The window of 6 pixels cuts off corner from corner, at a weight of exp(-61 / 8).
    np.testing.assert_allclose(first, second, atol=2e-3)
    assert np.abs(first - masks).max() > 0.1


def test_two_pixels_by_hand():
    """A row of two pixels of one colour: kernel 1 and g, row sums 1 + g, one update."""
    masks, images = np.array([[[[0.8], [0.3]]]], np.float32), np.zeros((1, 1, 2, 3), np.uint8)
    g = np.exp(-1 / (2 * 1.5**2))
    signs = np.array([0.6, -0.4])
    odds = np.array([4.0, 3 / 7]) * np.exp(3 * (signs + g * signs[::-1]) / (1 + g))
    found = _refine(masks, images, num_iterations=1, bilateral_weight=0.0)
    np.testing.assert_allclose(found[0, 0, :, 0], odds / (1 + odds), rtol=1e-5)


def test_foreground_and_background_are_alike():
    masks, images = _random()
    np.testing.assert_allclose(_refine(1 - masks, images), 1 - _refine(masks, images), atol=1e-5)


def test_images_are_uint8_or_scaled():
    masks, images = _random()
    scaled = (images / 127.5 - 1).astype(np.float32)
    np.testing.assert_allclose(_refine(masks, images), _refine(masks, scaled), atol=1e-5)


def test_hard_masks_are_clipped():
    """Log-odds stay finite: those of 0.99999, 11.5."""
    _, images = _random()
    hard = np.zeros((1, 6, 7, 1), np.float32)
    hard[:, :, 3:] = 1
    found = _refine(hard, images, num_iterations=0)
    np.testing.assert_allclose(found, np.where(hard == 1, 0.99999, 0.00001), rtol=1e-2)


def test_an_empty_mask_stays_empty():
    """That of a class without a region, next to one with a single value."""
    masks, images = _random(batch=2)
    masks[0], masks[1, 1:] = 0, 0
    found = _refine(masks, images)
    assert not found[0].any() and found[1].all()


def _noisy_disc():
    """The mask of a disc, a soft mask of it with errors, and an image of two noisy colours."""
    rng, size = np.random.default_rng(0), (40, 48)
    y, x = np.indices(size)
    true = (y - 18) ** 2 + (x - 25) ** 2 < 12**2
    image = np.where(true[..., None], (170, 90, 140), (110, 130, 150)) + rng.normal(0, 25, (*size, 3))
    blob = 1 / (1 + np.exp((np.hypot(y - 20, x - 23) - 11) / 3))
    mask = np.clip(blob + rng.normal(0, 0.25, size), 0.02, 0.98)
    return true, mask[None, ..., None].astype(np.float32), image[None].clip(0, 255).astype(np.uint8)


def _dice(masks, true):
    predicted = masks[0, ..., 0] >= 0.5
    return 2 * np.sum(predicted & true) / (np.sum(predicted) + np.sum(true))


def test_a_window_is_close_to_all_pairs_and_improves_the_mask():
    """All 1005 offsets of the window, and fewer."""
    true, masks, images = _noisy_disc()
    crf = crf_lib.Crf(num_iterations=2, gaussian_sigma=2.0, bilateral_sigma=6.0, color_sigma=11.0)
    exact = exact_crf.refine(masks, images, crf=crf)
    assert _dice(masks, true) < 0.7 < 0.85 < _dice(exact, true)
    for max_offsets, mean_difference in ((1005, 0.0005), (400, 0.01)):
        fast = _refine(masks, images, crf, max_offsets=max_offsets)
        assert np.mean(np.abs(fast - exact)) < mean_difference
        assert abs(_dice(fast, true) - _dice(exact, true)) < 0.02


@pytest.mark.parametrize(
    "field, value",
    [
        ("num_iterations", -1),
        ("gaussian_weight", -1.0),
        ("bilateral_weight", -1.0),
        ("gaussian_sigma", 0.0),
        ("bilateral_sigma", 0.0),
        ("color_sigma", -3.0),
        ("max_offsets", 0),
    ],
)
def test_impossible_values_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}={value} must be"):
        dataclasses.replace(CRF, **{field: value})


def test_masks_and_images_must_fit():
    masks, images = _random()
    with pytest.raises(ValueError, match=r"masks are \(6, 7, 1\), images \(1, 6, 7, 3\)"):
        crf_lib.refine(masks[0], images, crf=CRF)
    with pytest.raises(ValueError, match=r"give \[B, H, W, 1\]"):
        crf_lib.refine(masks, images[..., :1], crf=CRF)
