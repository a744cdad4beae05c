"""Dice by hand, and its identities."""

import numpy as np
import pytest

from minmax_jax.evaluation.metrics import dice

TRUE = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)


def test_dice_by_hand():
    predicted = np.array([[1, 0, 0, 1], [1, 0, 0, 1]], bool)
    assert dice.dice(predicted, TRUE) == pytest.approx(2 * 2 / (4 + 3))
    assert dice.dice(~predicted, ~TRUE) == pytest.approx(2 * 3 / (4 + 5))
    assert dice.dice(TRUE, TRUE) == 1
    assert dice.dice(~TRUE, TRUE) == 0


def test_dice_from_intersection_over_union():
    rng = np.random.default_rng(0)
    for _ in range(20):
        predicted, true = rng.random((2, 9, 7)) < 0.4
        iou = (predicted & true).sum() / (predicted | true).sum()
        assert dice.dice(predicted, true) == pytest.approx(2 * iou / (1 + iou))


def test_all_ones_is_two_p_over_one_plus_p():
    share = TRUE.mean()
    assert dice.dice(np.ones_like(TRUE), TRUE) == pytest.approx(2 * share / (1 + share))


def test_two_empty_masks_do_not_count_in_the_mean():
    nothing = np.zeros((2, 2), bool)
    scores = np.array([dice.dice(nothing, nothing), 0.5, 0.7])
    assert dice.mean_score(scores) == pytest.approx(0.6)
    assert np.isnan(dice.mean_score(scores[:1]))
