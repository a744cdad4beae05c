"""Faithfulness of masks to a classifier whose reasons are known."""

import numpy as np
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.evaluation import faithfulness

_SIZE = (40, 60)


def _object():
    true = np.zeros(_SIZE, bool)
    true[5:15, 8:28] = True
    return true


def _image():
    return np.where(_object()[..., None], [200, 40, 40], [90, 90, 90]).astype(np.uint8)


def _share_of_red(images):
    """The probability of class 1 is the share of the object's pixels that are seen in red."""
    is_red = images[..., 0].astype(int) - images[..., 1] > 100
    share = is_red.sum(axis=(1, 2)) / _object().sum()
    return np.stack([1 - share, share], axis=1)


def test_the_true_mask_against_a_classifier_that_counts_its_pixels():
    true = _object()
    found = faithfulness.score(_share_of_red, _image(), true.astype(float), true_mask=true, num_steps=12)
    # The object is a twelfth of the image: it is there, or gone, after one of twelve steps.
    assert found["mask"]["insertion_mean"] == pytest.approx(1 - 1 / 24)
    assert found["mask"]["deletion_mean"] == pytest.approx(1 / 24)
    assert found["mask"]["average_drop"] == 0 and found["mask"]["pointing"] == 1
    for kind in ("random", "box"):
        assert found[kind]["insertion_mean"] < found["mask"]["insertion_mean"] - 0.2
        assert found[kind]["deletion_mean"] > found["mask"]["deletion_mean"] + 0.2
        assert found[kind]["insertion_blur"] < found["mask"]["insertion_blur"]
    assert found["box"]["pointing"] < 0.2  # the object is not in the middle
    assert found["box"]["average_drop"] > 0.3


def test_curves_by_hand():
    """Four pixels, the classifier sees the first alone: it vanishes with the first step, and appears with the last."""
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = 255

    def first(images):
        share = (images[:, 0, 0, 0] > 200).astype(float)
        return np.stack([share, 1 - share], axis=1)

    ranks = {"first": np.array([[4.0, 3], [2, 1]]), "last": np.array([[1.0, 3], [2, 4]])}
    areas = {
        name: faithfulness._area(first, image, np.zeros_like(image), np.argsort(-rank.ravel()), 0, 4)
        for name, rank in ranks.items()
    }
    # Probabilities 1, 0, 0, 0, 0 and 1, 1, 1, 1, 0 at shares 0, 1/4, 1/2, 3/4, 1.
    assert areas == {"first": 0.125, "last": 0.875}


def test_the_other_maps_have_the_values_of_the_mask():
    mask = np.random.default_rng(0).uniform(size=_SIZE)
    maps = faithfulness._maps(mask, np.random.default_rng(1))
    assert set(maps) == set(faithfulness.KINDS)
    for values in maps.values():
        np.testing.assert_array_equal(np.sort(values.ravel()), np.sort(mask.ravel()))
    y, x = np.nonzero(maps["box"] >= np.quantile(mask, 0.75))
    assert np.ptp(y) / _SIZE[0] == pytest.approx(0.5, abs=0.06) and np.ptp(x) / _SIZE[1] == pytest.approx(0.5, abs=0.06)


def test_means_and_differences():
    rows = [
        {kind: {"insertion_mean": value + shift, "deletion_mean": value - shift} for kind, value in values.items()}
        for shift, values in ((0.0, dict(mask=0.8, random=0.5, box=0.8)), (0.1, dict(mask=0.6, random=0.5, box=0.9)))
    ]
    found = faithfulness.summarize(rows)
    assert found["insertion_mean"]["mask"] == pytest.approx(0.75)
    mean, error = found["insertion_mean"]["better_than_random"]
    assert mean == pytest.approx(0.2) and error == pytest.approx(np.std([0.3, 0.1], ddof=1) / 2**0.5)
    assert found["deletion_mean"]["better_than_random"][0] == pytest.approx(-0.2)  # low is good
    assert faithfulness.summarize(rows[:1])["insertion_mean"]["better_than_box"] == (0, None)


def test_a_number_is_the_mean_of_the_images_that_have_it():
    """Pointing needs a true mask, which some images have."""
    with_mask = {
        kind: {"increase": 1.0, "pointing": value} for kind, value in (("mask", 1), ("random", 0), ("box", 0.5))
    }
    without = {kind: {"increase": 0.0} for kind in faithfulness.KINDS}
    for rows in ([with_mask, without], [without, with_mask]):
        found = faithfulness.summarize(rows)
        assert found["increase"]["mask"] == 0.5
        assert found["pointing"]["mask"] == 1 and found["pointing"]["better_than_box"] == (0.5, None)


def test_what_does_not_fit_is_named():
    with pytest.raises(OptionError, match=r"mask=\[3, 3\] must have the size of the image, \[40, 60\]"):
        faithfulness.score(_share_of_red, _image(), np.ones((3, 3)))
    with pytest.raises(OptionError, match="num_steps=0"):
        faithfulness.score(_share_of_red, _image(), np.ones(_SIZE), num_steps=0)
