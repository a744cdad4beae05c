"""Evaluation with a known predictor: the prediction is encoded in the pixels of the image."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from minmax_jax import evaluation
from minmax_jax.data import dataset
from minmax_jax.evaluation.metrics import classification, dice, scores
from minmax_jax.method import Prediction
from minmax_jax.minmax.method import SCORES
from minmax_jax.ops import resize
from minmax_jax.report import panels
from tests import splits


def _predict_red(images):
    """The mask is the red channel; the class is whether the first pixel is bright; not a network."""
    red = jnp.asarray(images)[..., :1] / 255.0
    classes = (jnp.asarray(images)[:, 0, 0, 1] > 127).astype(jnp.int32)
    batch = len(classes)
    return Prediction(
        probabilities=jnp.eye(2)[classes],
        masks=red,
        scores={
            "localizer_class": jnp.zeros(batch, jnp.int32),
            "foreground_entropy": jnp.full(batch, 0.1),
            "background_entropy": jnp.arange(batch) * 0.2,
        },
    )


def _evaluators(**options):
    return classification.evaluator(SCORES), dice.evaluator(**options), scores.evaluator(SCORES)


def _evaluate(split, predict_fn=_predict_red, *, batch_size=2, refine_fn=None, **options):
    """(rows, summary) of a split."""
    evaluators = _evaluators(**options)
    rows = evaluation.evaluate(predict_fn, split, evaluators, batch_size=batch_size, refine_fn=refine_fn)
    return rows, evaluation.summarize(rows, evaluators)


def test_masks_come_back_at_each_image_s_own_resolution():
    split = splits.make_split([(40, 50), (33, 64), (40, 51), (64, 64), (40, 50)])
    found = list(evaluation.predict_split(_predict_red, split, batch_size=2))
    assert sorted(item.index for item in found) == [0, 1, 2, 3, 4]
    for item in found:
        image = split.read_image(item.index)
        np.testing.assert_allclose(item.mask, image[..., 0] / 255.0, rtol=1e-6)


def test_masks_are_refined_with_their_own_image_without_its_margins():
    split = splits.make_split([(40, 50), (33, 64), (40, 51)])
    refine = lambda mask, image: mask * (image[..., 1] > 127)
    for found in evaluation.predict_split(_predict_red, split, batch_size=2, refine_fn=refine):
        image = split.read_image(found.index)
        np.testing.assert_allclose(found.mask, image[..., 0] / 255.0 * (image[..., 1] > 127), rtol=1e-6)
    rows, _ = _evaluate(split, refine_fn=lambda mask, image: 0 * mask)
    assert [row["f1_foreground"] for row in rows] == [0, 0, 0]


def test_numbers_equal_those_of_plain_loops():
    split = splits.make_split([(40, 50), (33, 64), (64, 64)])
    rows, summary = _evaluate(split, threshold=0.6)
    expected, expected_background = [], []
    for index in range(3):
        predicted = split.read_image(index)[..., 0] / 255.0 >= 0.6
        true = split.read_mask(index)
        expected.append(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))
        expected_background.append(2 * (~predicted & ~true).sum() / ((~predicted).sum() + (~true).sum()))
    assert [row["name"] for row in rows] == list(split.names)
    for index, row in enumerate(rows):
        assert row["label"] == split.labels[index] and row["predicted"] == np.argmax(row["probabilities"])
        assert row["f1_foreground"] == pytest.approx(expected[index]) and row["localizer_class"] == 0
    assert rows[2]["predicted"] == (split.read_image(2)[0, 0, 1] > 127)  # the one image without padding
    assert summary["num_images"] == summary["num_images_with_mask"] == 3
    assert summary["f1_foreground"] == pytest.approx(100 * np.mean(expected))
    assert summary["f1_background"] == pytest.approx(100 * np.mean(expected_background))
    assert summary["localizer_classification_error"] == pytest.approx(100 * np.mean(split.labels != 0))
    assert summary["foreground_entropy"] == pytest.approx(0.1)


def test_images_without_a_mask_count_in_the_error_and_in_no_f1():
    whole = splits.make_split([(40, 50), (33, 64), (64, 64)])
    read_mask = lambda index: None if index == 1 else whole.read_mask(index)
    split = dataclasses.replace(whole, read_mask=read_mask)
    _, summary = _evaluate(split)
    _, expected = _evaluate(dataset.subset(whole, [0, 2]))
    assert (summary["num_images"], summary["num_images_with_mask"]) == (3, 2)
    for name in ("f1_foreground", "f1_background", "baselines"):
        assert summary[name] == expected[name]
    assert summary["localizer_classification_error"] == pytest.approx(100 / 3)


def test_without_any_mask_there_is_no_f1(tmp_path):
    split = dataclasses.replace(splits.make_split([(40, 50)]), read_mask=lambda index: None)
    (row,), summary = _evaluate(split)
    assert row["f1_foreground"] is None
    assert summary["num_images_with_mask"] == 0
    assert np.isnan([summary["f1_foreground"], summary["baselines"]["all_ones"]["f1_background"]]).all()
    (found,) = evaluation.predict_split(_predict_red, split, batch_size=1)
    panels.draw_panel(tmp_path / "panel.png", split, found, threshold=0.5)
    assert (tmp_path / "panel.png").stat().st_size > 1000


def test_all_foreground_baseline():
    split = splits.make_split([(40, 50), (32, 33)])
    baseline = _evaluate(split)[1]["baselines"]["all_ones"]
    shares = [25 / 50, 16 / 33]
    assert baseline["f1_foreground"] == pytest.approx(100 * np.mean([2 * p / (1 + p) for p in shares]))
    assert baseline["f1_background"] == 0


def test_masks_are_compared_at_the_true_mask_s_resolution():
    """A true mask of twice the size: the found one is enlarged between centres of pixels, not the true one shrunk."""
    split = splits.make_split([(32, 32)], mask_sizes=[(64, 64)])
    (row,), _ = _evaluate(split)
    red = split.read_image(0)[..., 0] / 255.0
    places = (np.arange(64) + 0.5) / 2 - 0.5
    rows = np.stack([np.interp(places, np.arange(32), line) for line in red])
    enlarged = np.stack([np.interp(places, np.arange(32), line) for line in rows.T], axis=1)
    predicted, true = enlarged >= 0.5, split.read_mask(0)
    assert row["f1_foreground"] == pytest.approx(
        2 * (predicted & true).sum() / (predicted.sum() + true.sum()), abs=1e-3
    )


def test_a_mask_goes_back_to_where_its_image_was_shrunk_from():
    """Pillow shrinks between the centres of pixels: two squares near the borders stay where they are."""
    image = np.zeros((512, 512), np.uint8)
    image[16:48, 16:48] = image[464:496, 464:496] = 255
    shrunk = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    found = resize.resize_mask(shrunk / 255, (512, 512)) >= 0.5
    for square in (found[:256, :256], found[256:, 256:]):
        rows, columns = (np.nonzero(square.any(axis=axis))[0] for axis in (1, 0))
        assert [rows[0], rows[-1]] == [columns[0], columns[-1]]
    rows = np.nonzero(found.any(axis=1))[0]
    assert rows[0] == pytest.approx(16, abs=1) and rows[-1] == pytest.approx(495, abs=1)


def test_one_batch_shape_for_each_padded_shape():
    """Also the last, incomplete batch has the full size: nothing is compiled twice."""
    shapes = []

    def recording(images):
        shapes.append(images.shape)
        return _predict_red(images)

    split = splits.make_split([(40, 50)] * 5 + [(96, 64)] * 3)
    rows, _ = _evaluate(split, recording, batch_size=4)
    assert set(shapes) == {(4, 64, 64, 3), (4, 96, 64, 3)} and len(rows) == 8


def test_a_mask_of_the_true_one_s_size_stays_as_it_is():
    mask = np.random.default_rng(0).random((7, 9), np.float32)
    np.testing.assert_array_equal(resize.resize_mask(mask, (7, 9)), mask)
    assert resize.resize_mask(mask, (7, 9)).dtype == resize.resize_mask(mask, (7, 8)).dtype == np.float64


def test_the_next_batch_is_under_way_before_the_last_is_looked_at():
    calls = []

    def recording(images):
        calls.append(images.shape)
        return _predict_red(images)

    split = splits.make_split([(40, 50)] * 3)
    found = evaluation.predict_split(recording, split, batch_size=1)
    assert [next(found).index, len(calls)] == [0, 2]
    assert [next(found).index, len(calls)] == [1, 3]
    assert [next(found).index, len(calls)] == [2, 3]
    assert list(found) == []


def test_an_image_that_cannot_be_read_is_told_by_its_name():
    def read_image(index):
        raise dataset.DataError("The image of 'pet.png' cannot be read.")

    split = dataclasses.replace(splits.make_split([(40, 50)]), read_image=read_image)
    with pytest.raises(dataset.DataError, match="pet.png"):
        _evaluate(split)


def test_evaluators_share_one_pass_and_keep_histograms():
    """A metric of a user's own: integer counts per image, added up for the split."""

    def score(prediction, truth):
        counts, _ = np.histogram(prediction.mask, bins=4, range=(0, 1))
        return {"histogram": counts}

    def summarize(rows):
        return {"histogram": sum(row["histogram"] for row in rows)}

    split, calls = splits.make_split([(40, 50), (33, 64)]), []

    def recording(images):
        calls.append(images.shape)
        return _predict_red(images)

    evaluators = (*_evaluators(), evaluation.Evaluator(score, summarize))
    rows = evaluation.evaluate(recording, split, evaluators, batch_size=2)
    summary = evaluation.summarize(rows, evaluators)
    assert len(calls) == 1 and summary["num_images"] == 2
    assert summary["histogram"].sum() == 40 * 50 + 33 * 64
    assert all(row["histogram"].dtype.kind == "i" for row in rows)


def test_a_method_without_localizer_and_entropies_has_none_in_its_summary():
    predict = lambda images: dataclasses.replace(_predict_red(images), scores={})
    _, summary = _evaluate(splits.make_split([(40, 50)]), predict)
    assert set(summary) == {
        *("num_images", "num_images_with_mask", "classification_error", "balanced_error"),
        *("f1_foreground", "f1_background", "baselines"),
    }
