"""Augmentation: what a crop may show, flips, and colours, against NumPy."""

import numpy as np
from PIL import Image
import pytest

from minmax_jax.data import transforms

# Each pixel tells its row and column.
IMAGE = np.stack(np.broadcast_arrays(np.arange(40)[:, None], np.arange(50)[None, :], 0), axis=-1).astype(np.uint8)


def _augment(seed=0, image=IMAGE, **options):
    options = {"flip_horizontal": False} | options
    augmentation = transforms.Augmentation(**options)
    element = augmentation.random_map({"images": image, "labels": 1}, np.random.default_rng(seed))
    assert element["labels"] == 1
    return element["images"]


def test_a_crop_is_a_part_of_the_image():
    corners = set()
    for seed in range(60):
        crop = _augment(seed, size=(32, 36))
        top, left = crop[0, 0, :2]
        np.testing.assert_array_equal(crop, IMAGE[top : top + 32, left : left + 36])
        corners.add((top, left))
    assert {top for top, _ in corners} == set(range(9)) and {left for _, left in corners} == set(range(15))


def test_padding_reflects_a_share_of_each_side():
    padded = np.pad(IMAGE, ((20, 20), (25, 25), (0, 0)), mode="reflect")
    windows = {padded[i : i + 32, j : j + 32].tobytes() for i in range(80 - 32 + 1) for j in range(100 - 32 + 1)}
    crops = {_augment(seed, size=(32, 32), padding=0.5).tobytes() for seed in range(40)}
    assert crops <= windows and len(crops) > 30


def test_a_small_image_is_padded_to_the_crop():
    crop = _augment(size=(64, 48))
    assert crop.shape == (64, 48, 3)
    assert set(np.unique(crop[..., 0])) <= set(range(40))


@pytest.mark.parametrize("option, axis", [("flip_horizontal", 1), ("flip_vertical", 0)])
def test_flips_half_of_the_time(option, axis):
    crops = [_augment(seed, size=(40, 50), **{option: True}) for seed in range(200)]
    flipped = [np.array_equal(crop, np.flip(IMAGE, axis)) for crop in crops]
    assert all(flip or np.array_equal(crop, IMAGE) for flip, crop in zip(flipped, crops))
    assert 70 < sum(flipped) < 130


def _colored(seed, **jitter):
    image = np.random.default_rng(9).integers(60, 190, (40, 50, 3), np.uint8)
    return image, _augment(seed, image, size=(40, 50), **jitter)


def _is_blend(jittered, image, other, maximum):
    """Whether jittered = other + f (image - other) for one f in 1 +- maximum, rounding aside."""
    difference = image - other
    factor = np.sum((jittered - other) * difference) / np.sum(difference**2)
    return abs(factor - 1) <= maximum + 0.02 and np.abs(other + factor * difference - jittered).max() <= 1.5


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_changes_blend_with_black_mean_grey_and_grey(name):
    factors = []
    for seed in range(20):
        image, jittered = _colored(seed, **{name: 0.3})
        image, jittered = image.astype(float), jittered.astype(float)
        grey = np.asarray(Image.fromarray(image.astype(np.uint8)).convert("L"), float)[..., None]
        other = {
            "brightness": 0 * image,
            "contrast": 0 * image + round(grey.mean()),
            "saturation": grey + 0 * image,
        }
        assert _is_blend(jittered, image, other[name], 0.3)
        factors.append(jittered.std())
    assert max(factors) > 1.2 * min(factors)


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_strong_changes_are_drawn_as_torchvision_does(strength):
    """Factors are uniform from max(0, 1 - strength) to 1 + strength, without a point mass at 0."""
    image = np.full((32, 32, 3), 40, np.uint8)
    options = dict(size=(32, 32), brightness=strength)
    factors = [_augment(seed, image, **options)[0, 0, 0] / 40 for seed in range(300)]
    assert np.mean(factors) == pytest.approx((1 + strength) / 2, rel=0.15)
    assert np.mean(np.array(factors) == 0) < 0.02


def test_hue_turns_colours_and_keeps_their_value():
    image, jittered = _colored(3, hue=0.5)
    assert np.abs(image.max(axis=-1).astype(int) - jittered.max(axis=-1)).max() <= 2
    assert np.abs(image.astype(int) - jittered).mean() > 5


def test_the_generator_decides_everything():
    options = dict(size=(32, 32), padding=0.5, flip_horizontal=True, flip_vertical=True, contrast=0.5, hue=0.1)
    np.testing.assert_array_equal(_augment(5, **options), _augment(5, **options))
    assert not np.array_equal(_augment(5, **options), _augment(6, **options))
