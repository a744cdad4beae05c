"""Test-time augmentation of the second stage: of the masks from which seeds are drawn, and of refined masks."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.data import synthetic
from minmax_jax.ops import resize
from minmax_jax.runs import predictor, second_stage
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from tests import programs, saved_models

_IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
_AXES = {"horizontal": 2, "vertical": 1}


@pytest.mark.parametrize("flips", [("horizontal",), ("vertical",), ()])
def test_seeds_are_drawn_from_means_over_the_mirror_images_of_training_and_over_sizes(flips):
    """Whatever predictions are means over."""
    config = programs.config(evaluation__flips=False, evaluation__scales=(1.0,), refine__scales=(1.0, 0.5))
    for name in _AXES:
        config.data[f"flip_{name}"] = name in flips
    options, split = options_lib.read(config), synthetic.load("train", 4, config=synthetic.SyntheticConfig())
    method = creation.create_method(options, num_classes=4, steps_per_epoch=1)
    state = method.init(jax.random.key(0), (64, 64))
    variables = state.variables | {"step": state.step}
    predict, expected = jax.jit(method.predict), []
    for side in (64, 32):
        images = resize.resize_bilinear(jnp.float32(_IMAGES) / 127.5 - 1, (side, side))
        for axis in (None, *(_AXES[name] for name in flips)):
            masks = predict(variables, images if axis is None else jnp.flip(images, axis)).masks
            masks = masks if axis is None else jnp.flip(masks, axis)
            expected.append(np.asarray(resize.resize_bilinear(masks, (64, 64))))
    assert np.abs(expected[0] - expected[-1]).max() > 0.01  # the views differ
    run = types.SimpleNamespace(options=options, splits={"train": split}, steps_per_epoch=1)
    found = jax.jit(second_stage._create_seed_method(run).predict)(variables, _IMAGES)
    np.testing.assert_allclose(found.masks, np.mean(expected, axis=0), atol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with a second stage that is tested with mirror images."""
    path = tmp_path_factory.mktemp("saved")
    saved_models.write(path, refine__enabled=True, evaluation__flips=True)
    return path


def test_the_decoder_s_masks_are_means_over_mirror_images(folder):
    """So are their scores: the first stage's masks disagree as well, by another amount."""
    flipped, plain = predictor.load(folder), predictor.load(folder, flips=False)
    found = flipped.predict(_IMAGES)
    for axis in (1, 2):
        mirrored = flipped.predict(np.flip(_IMAGES, axis)).masks
        np.testing.assert_allclose(np.flip(mirrored, axis), found.masks, atol=1e-5)
    masks = [np.flip(plain.predict(np.flip(_IMAGES, axes)).masks, axes) for axes in ((), 1, 2, (1, 2))]
    assert np.abs(masks[0] - masks[1]).max() > 0.01
    mean = np.mean(masks, axis=0)
    np.testing.assert_allclose(found.masks, mean, atol=1e-5)
    spread = np.subtract(*np.quantile(mean, (0.95, 0.05), axis=(1, 2, 3)))
    disagreement = np.abs(masks - mean).mean(axis=(0, 2, 3, 4)) / spread
    np.testing.assert_allclose(found.scores["view_disagreement"], disagreement, rtol=1e-3)
    of_first = predictor.load(folder, refine=False).predict(_IMAGES).scores["view_disagreement"]
    assert (np.abs(of_first / disagreement - 1) > 0.1).all()


def test_the_decoder_s_masks_are_those_of_the_image_s_own_size(folder):
    of_scales = predictor.load(folder, flips=False, scales=(0.5, 1.0)).predict(_IMAGES)
    of_one = predictor.load(folder, flips=False).predict(_IMAGES)
    np.testing.assert_allclose(of_scales.masks, of_one.masks, atol=1e-5)
    assert np.abs(of_scales.probabilities - of_one.probabilities).max() > 1e-4
