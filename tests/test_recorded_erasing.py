"""Recursive erasing pass by pass, against the rules computed by hand, and its pictures in a report."""

import base64
import json
import types

import numpy as np
from PIL import Image
import pytest

from minmax_jax.minmax import recorded_erasing
from minmax_jax.ops import intensity
from minmax_jax.report import page
from minmax_jax.runs.drawing import film_strips


def _localize(images):
    """Scores (mean of the pixels, 0), and a mask of 0.75 where a pixel is positive: of two images of one pixel."""
    means = np.asarray(images).mean(axis=(1, 2, 3))
    return np.stack([means, np.zeros_like(means)], axis=1), 0.75 * (np.asarray(images)[..., :1] > 0)


def test_passes_are_those_of_the_rules():
    images = np.array([0.8, -0.8], np.float32)[:, None, None, None] * np.ones((2, 1, 1, 3), np.float32)
    first, second = recorded_erasing.record(_localize, images, np.array([0, 0]), num_erasures=2, decay=2.0)
    # The first image: p = sigmoid(0.8), trust p, erased by 1 - 0.75 p. The second names the wrong class.
    p = 1 / (1 + np.exp(-0.8))
    np.testing.assert_allclose(first.losses, [-np.log(p), -np.log(1 - p)], rtol=1e-5)
    np.testing.assert_allclose(first.trust, [p, 0], rtol=1e-5)
    np.testing.assert_allclose(first.masks.ravel(), [0.75, 0])
    np.testing.assert_array_equal(first.images, images)
    left = 0.8 * (1 - 0.75 * p)
    np.testing.assert_allclose(second.images[0], np.full((1, 1, 3), left), rtol=1e-5)
    np.testing.assert_array_equal(second.images[1], images[1])
    np.testing.assert_allclose(second.masks.ravel(), [0.75, 0])
    # The loss of what is left exceeds the first: no trust.
    np.testing.assert_allclose(second.losses[0], np.log1p(np.exp(-left)), rtol=1e-5)
    np.testing.assert_array_equal(second.trust, [0, 0])


def test_later_passes_are_trusted_less():
    images = np.zeros((1, 1, 1, 3), np.float32)  # nothing to erase: each pass is equal to the first

    def localize(images):
        return np.array([[1.0, 0.0]], np.float32), np.asarray(images)[..., :1]

    passes = recorded_erasing.record(localize, images, np.array([0]), num_erasures=3, decay=2.0)
    p = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose([one.trust[0] for one in passes], [p, p * np.exp(-0.5), p * np.exp(-1)], rtol=1e-5)


def test_a_strip_ends_with_the_first_pass_without_trust():
    passes = [types.SimpleNamespace(trust=[trust]) for trust in (0.9, 0.5, 0.0, 0.0)]
    assert film_strips._until_untrusted(passes) == passes[:3]
    assert film_strips._until_untrusted(passes[:2]) == passes[:2]


def test_pixels_become_grey_values():
    np.testing.assert_array_equal(intensity.to_uint8(np.array([-1, 0, 1, 1.5], np.float32)), [0, 128, 255, 255])


@pytest.fixture(scope="module")
def finished(tiny_run):
    """The folder of a run with two erasures that has just ended; read only."""
    return tiny_run[0]


def test_a_report_shows_the_passes(finished):
    strips, text = json.loads((finished / "film/index.json").read_text()), (finished / page.NAME).read_text()
    assert [strip["name"] for strip in strips] == [f"test_{index:06d}" for index in (0, 2, 4, 7, 9, 11)]
    for strip in strips:
        assert [one_pass["trust"] == 0 for one_pass in strip["passes"]] in ([True], [False, True], [False, False])
        for one_pass in strip["passes"]:
            assert 0 <= one_pass["trust"] <= 1 and one_pass["loss"] > 0
            assert base64.b64encode((finished / f"film/{one_pass['file']}.jpg").read_bytes()).decode() in text
            assert f"trust {one_pass['trust']:.2f}, loss {one_pass['loss']:.2f} nats" in text
    with Image.open(finished / "film/0_0.jpg") as picture, Image.open(finished / "gallery/0.jpg") as image:
        np.testing.assert_allclose(np.asarray(picture, int), np.asarray(image, int), atol=2)  # X_0 is the image


def test_without_erasing_there_is_no_strip(tmp_path):
    (tmp_path / "film").mkdir()
    (tmp_path / "film/old.jpg").touch()  # of an earlier test
    run = types.SimpleNamespace(method=types.SimpleNamespace(record_erasing=None), splits={"test": None})
    film_strips.write(run, tmp_path, state=None)
    assert not list((tmp_path / "film").iterdir())
