"""The swap test, on classifiers whose use of the mask is known."""

import numpy as np
import pytest

from minmax_jax.evaluation import diagnosis
from minmax_jax.method import Prediction
from tests import splits


def _predict(images):
    """A square at the top left, of another size in each image."""
    height, width = images.shape[1:3]
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    sides = 8 + images[:, 0, 0, 0].astype(int) % 8
    masks = np.stack([(rows < side) & (columns < side) for side in sides]).astype(np.float32)[..., None]
    return Prediction(np.full((len(images), 2), 0.5), masks, {})


def _by_place(images, masks):
    """Sees class 0 in what the top left corner lets through."""
    share = masks[:, :4, :4, 0].mean((1, 2))
    return np.stack([0.5 + 0.5 * share, 0.5 - 0.5 * share], axis=-1)


def _by_image(images, masks):
    """Knows the class whatever the mask."""
    return np.tile([0.9, 0.1], (len(images), 1))


def _summary(classify, sizes=((32, 32),) * 6 + ((32, 64),) * 3):
    split = splits.make_split(sizes, read_mask=splits.refuse)
    return diagnosis.summarize(diagnosis.score(_predict, classify, split, batch_size=2))


def test_a_classifier_that_reads_the_region_loses_it():
    summary = _summary(_by_place)
    assert summary["num_images"] == 9
    assert summary["own"]["probability"] == 1 and summary["own"]["entropy"] == pytest.approx(0, abs=1e-6)
    # Another image's square is also at the top left: it shows the same.
    assert summary["other"]["loss"] == 0 and not summary["has_evidence"]
    assert summary["moved"] == pytest.approx(
        {"probability": 0.5, "entropy": np.log(2), "error": summary["moved"]["error"], "loss": 0.5, "standard_error": 0}
    )
    assert 0.1 < summary["random"]["loss"] <= 0.5
    # Labels alternate 0, 1: five of nine images are of class 0, which is always predicted.
    assert summary["own"]["error"] == pytest.approx(100 * 4 / 9)


@pytest.mark.parametrize("sizes", [((32, 32), (32, 64)), ((32, 32), (32, 64), (64, 32), (64, 64)), ((32, 64),) * 2])
@pytest.mark.parametrize("is_refined", [False, True])
def test_the_mask_of_another_image_is_another_one_s(sizes, is_refined):
    """Each image's mask has its own value, whatever batches its size leads to."""
    split = splits.make_split(sizes, read_mask=splits.refuse)
    values = {split.read_image(index)[5, 5].tobytes(): (index + 1) / 16 for index in range(len(sizes))}

    def values_of(images):
        # Padding by reflection keeps the pixel at (5, 5) for these sizes, which are multiples of 32.
        return np.array([values[image[5, 5].tobytes()] for image in images], np.float32)

    def predict(images):
        factor = 2 if is_refined else 1
        masks = np.broadcast_to(factor * values_of(images)[:, None, None, None], (*images.shape[:3], 1))
        return Prediction(np.full((len(images), 2), 0.5), masks, {})

    seen = []

    def classify(images, masks):
        seen.append((values_of(images), masks[:, 0, 0, 0]))
        return np.full((len(images), 2), 0.5)

    refine_fn = (lambda mask, image: mask / 2) if is_refined else None
    rows = diagnosis.score(predict, classify, split, batch_size=2, refine_fn=refine_fn)
    assert len(rows) == len(sizes)
    own, other = seen[:: len(diagnosis.KINDS)], seen[1 :: len(diagnosis.KINDS)]
    for of_images, masks in own:
        np.testing.assert_allclose(masks, of_images)
    for of_images, masks in other:
        # The second place of a batch of one image holds its copy, which counts nowhere.
        assert not np.isclose(masks[0], of_images[0]) and min(abs(masks[0] - v) for v in values.values()) < 1e-6


def test_one_image_has_no_other_s_mask():
    split = splits.make_split([(32, 32)], read_mask=splits.refuse)
    assert diagnosis.score(_predict, _by_place, split, batch_size=2) == []


def test_a_classifier_that_ignores_the_mask_has_no_evidence():
    summary = _summary(_by_image)
    assert not summary["has_evidence"]
    assert [summary[kind]["loss"] for kind in ("other", "moved", "random")] == [0, 0, 0]
    assert summary["own"]["entropy"] == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1))


def test_evidence_needs_a_loss_through_each_of_the_others():
    row = {kind: {"probability": 0.5, "entropy": 0.1, "correct": True} for kind in diagnosis.KINDS}
    rows = [row | {"own": row["own"] | {"probability": 0.9 + 0.01 * index}} for index in range(5)]
    summary = diagnosis.summarize(rows)
    assert summary["has_evidence"] and summary["other"]["loss"] == pytest.approx(0.42)
    assert summary["other"]["standard_error"] == pytest.approx(np.std([0, 1, 2, 3, 4], ddof=1) / 100 / np.sqrt(5))
    small = [one | {"moved": one["moved"] | {"probability": one["own"]["probability"] - 0.04}} for one in rows]
    assert not diagnosis.summarize(small)["has_evidence"]
    assert not diagnosis.summarize(rows[:1])["has_evidence"]


def test_random_masks_have_the_same_values_elsewhere():
    mask = np.zeros((24, 40), np.float32)
    mask[:12, :10] = np.linspace(0.1, 1, 120).reshape(12, 10)
    found = diagnosis._shuffle(mask, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(mask.ravel()))
    assert found.shape == mask.shape and not np.array_equal(found, mask)
    # Smooth: neighbours are alike, as they would not be in a permutation of the pixels.
    assert np.abs(np.diff(found, axis=1)).mean() < 0.05
