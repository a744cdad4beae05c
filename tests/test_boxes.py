"""Boxes of masks at all thresholds: golden values, a plain implementation of the protocol, and its properties."""

import numpy as np
import pytest
from scipy import ndimage

from minmax_jax.evaluation.metrics import boxes
from minmax_jax.ops.cpu import components, library
from tests.test_metrics import _predict, _random_pairs, _rows, _truth, _values

_BOTH = [components.box_overlaps, components.box_overlaps_without_compiler]


def test_iou_counts_inclusive_pixels():
    # (left, top, right, bottom) (1, 2, 5, 6) and (3, 1, 4, 5): 8 of 27 pixels.
    assert components.box_iou(np.array([[2, 1, 6, 5]]), np.array([[1, 3, 5, 4]]))[0, 0] == pytest.approx(8 / 27)
    assert components.box_iou(np.array([[0, 0, 1, 1]]), np.array([[2, 2, 3, 3], [0, 0, 1, 1]])).tolist() == [[0, 1]]


def test_true_boxes_are_scaled_and_truncated():
    # Left 1, top 2, right 4, bottom 3 in an image of 10 x 20, at 224 x 224.
    found = boxes.true_boxes(_truth(None, boxes=np.array([[2 / 20, 1 / 10, 3 / 20, 4 / 10]])))
    assert found.tolist() == [[22, 22, 33, 89]]
    assert boxes.true_boxes(_truth(None, boxes=np.array([[0.0, 0, 1, 1]]))).tolist() == [[0, 0, 223, 223]]


def test_without_boxes_the_regions_of_the_mask_count():
    mask = np.zeros((224, 224), bool)
    mask[10:20, 30:50] = mask[20:22, 50:52] = True  # the second touches the first at a corner
    mask[100:104, 200:224] = True
    assert boxes.true_boxes(_truth(mask)).tolist() == [[10, 30, 21, 51], [100, 200, 103, 223]]
    assert boxes.true_boxes(_truth(np.zeros((5, 5)))).shape == (0, 4)


def _overlaps(levels, truth):
    """The definition: at each threshold anew."""
    largest, best = np.zeros(256), np.zeros(256)
    for v in range(255):
        regions, count = ndimage.label(levels > v, np.ones((3, 3)))
        of_regions = []
        for index in range(1, count + 1):
            y, x = np.nonzero(regions == index)
            top, left, bottom, right = y.min(), x.min(), y.max(), x.max()
            ious = []
            for t in truth:
                height = min(bottom, t[2]) - max(top, t[0]) + 1
                width = min(right, t[3]) - max(left, t[1]) + 1
                both = max(height, 0) * max(width, 0)
                areas = (bottom - top + 1) * (right - left + 1), (t[2] - t[0] + 1) * (t[3] - t[1] + 1)
                ious.append(both / (sum(areas) - both))
            of_regions.append((len(y), max(ious)))
        if of_regions:
            largest[v] = max(of_regions, key=lambda region: region[0])[1]
            best[v] = max(iou for _, iou in of_regions)
    return largest, best


@pytest.mark.parametrize("overlaps", _BOTH)
@pytest.mark.parametrize("levels_used", [256, 5])
def test_overlaps_equal_the_definition(overlaps, levels_used):
    rng = np.random.default_rng(levels_used)
    field = ndimage.gaussian_filter(rng.normal(size=(31, 23)), 2)
    levels = np.interp(field, (field.min(), field.max()), (0, 255)) // (256 // levels_used) * (256 // levels_used)
    truth = np.array([[3, 4, 15, 12], [20, 10, 28, 20]])
    for found, expected in zip(overlaps(levels.astype(np.uint8), truth), _overlaps(levels.astype(np.uint8), truth)):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("overlaps", _BOTH)
def test_overlaps_of_constant_levels(overlaps):
    truth = np.array([[0, 0, 1, 3]])
    for level, expected in ((0, np.zeros(256)), (7, np.where(np.arange(256) < 7, 0.5, 0))):
        for found in overlaps(np.full((4, 4), level, np.uint8), truth):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(library.host_function("box_overlaps") is None, reason="needs a C compiler")
def test_both_forms_agree_on_noise():
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (1, 40), (40, 1), (57, 64)):
        levels = rng.integers(0, 256, shape).astype(np.uint8)
        truth = np.sort(rng.integers(0, min(shape), (3, 2, 2)), axis=1).reshape(3, 4)
        for found, expected in zip(*(form(levels, truth) for form in _BOTH)):
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_mask_is_scaled_to_its_range():
    ramp = np.tile(np.linspace(0.4, 0.6, 224), (224, 1))
    assert boxes.quantize(ramp).min() == 0 and boxes.quantize(ramp).max() == 255
    assert (boxes.quantize(np.full((9, 9), 0.2)) == 255).all()


def test_a_constant_mask_is_the_box_of_the_image():
    """Published evaluators gave it no box at all."""
    true = np.zeros((100, 100), bool)
    true[:60] = True
    for value in (0.2, 0.8):
        found = _values([(_predict(np.full((100, 100), value)), _truth(true))])
        assert found["max_box_acc"] == 100 and found["gt_known_localization"] == (100 if value > 0.5 else 0)


def test_the_largest_region_and_all_regions_differ():
    """Two regions; the true box is that of the smaller."""
    scores, true = np.zeros((224, 224)), np.zeros((224, 224), bool)
    scores[:100, :100] = scores[150:200, 150:200] = 1
    true[150:200, 150:200] = True
    found = _values([(_predict(scores), _truth(true))])
    assert (found["max_box_acc"], found["max_box_acc_v2"]) == (0, 100)


def test_top_1_is_at_most_top_5_is_at_most_gt_known():
    for seed in range(5):
        found = _values(_random_pairs(count=20, seed=seed))
        assert found["top1_localization"] <= found["top5_localization"] <= found["gt_known_localization"]
        assert found["top1_localization_best"] <= found["top5_localization_best"] <= found["max_box_acc"]
        assert found["gt_known_localization"] > 0


def test_a_resample_without_any_box_has_no_number_and_no_warning():
    true = np.zeros((224, 224), bool)
    true[50:150, 50:150] = True
    rows = _rows([(_predict(true), _truth(true)), (_predict(true), _truth(None))], [boxes.evaluator(threshold=0.5)])
    for name, metric in boxes.evaluator(threshold=0.5).metrics(rows).items():
        found = metric.values(np.array([[1.0, 1.0], [0.0, 2.0]]))
        assert np.isfinite(found[0]) and np.isnan(found[1]), name


def test_localization_by_hand():
    """A box that fits, with the class right, among the first five, and neither; and one that does not fit."""
    true, probabilities = np.zeros((224, 224), bool), np.array([0.5, 0.2, 0.1, 0.08, 0.07, 0.05])
    true[50:150, 50:150] = True
    away = np.roll(true, 100, axis=0)
    pairs = [(_predict(true, probabilities), _truth(true, label)) for label in (0, 4, 5)]
    pairs.append((_predict(away, probabilities), _truth(true, 0)))
    found = _values(pairs)
    names = ("top1_localization", "top5_localization", "gt_known_localization", "max_box_acc")
    assert [found[name] for name in names] == [25, 50, 75, 75]
    assert found["top1_localization_best"] == 25 and found["top5_localization_best"] == 50
