"""Masks of training images by recursive erasing at inference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.method import Prediction
from minmax_jax.refinement import erased_masks

_PROBABILITIES = (0.25, 0.75)


def _brightest(variables, images):
    """The brightest pixel of each image is its foreground; pixels at 0 are erased."""
    del variables
    greatest = images.max(axis=(1, 2, 3), keepdims=True)
    masks = ((images[..., :1] == greatest) & (greatest > 0)).astype(jnp.float32)
    return Prediction(jnp.tile(jnp.array(_PROBABILITIES), (len(images), 1)), masks, {})


@pytest.mark.parametrize(
    "num_erasures, expected",
    [(0, [0, 0, 1, 0]), (1, [0, 0.75, 1, 0]), (2, [0.75, 0.75, 1, 0]), (5, [0.75, 0.75, 1, 0])],
)
def test_each_pass_adds_what_is_left_times_the_probability_of_the_class(num_erasures, expected):
    # With trust below 1 a pixel is hidden in part: 0.8 becomes 0.2, less than any other.
    image = np.float32([0.6, 0.8, 0.9, -0.5])
    batch = {"images": np.tile(image[None, None, :, None], (2, 1, 1, 3)), "labels": np.array([1, 0])}
    masks = jax.jit(
        lambda batch: erased_masks.accumulate_masks({}, batch, predict=_brightest, num_erasures=num_erasures)
    )(batch)
    assert masks.shape == (2, 1, 4, 1)
    np.testing.assert_allclose(masks[0, 0, :, 0], expected)
    other = np.where(np.array(expected) == 0.75, 0.25, expected)
    if num_erasures <= 1:
        np.testing.assert_allclose(masks[1, 0, :, 0], other)
