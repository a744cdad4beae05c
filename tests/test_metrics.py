"""Metrics of masks, boxes and classes, by hand, by plain loops, and against scikit-learn."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as sklearn_metrics

from minmax_jax import evaluation
from minmax_jax.evaluation import baselines, class_table, evaluators, intervals
from minmax_jax.evaluation.metrics import (
    boundary,
    boxes,
    calibration,
    classification,
    dice,
    overlap,
    pixel_curve,
    thresholds,
)
from tests import splits

_NO_BOXES = np.zeros((0, 4))
_MASK_EVALUATORS = (
    dice.evaluator(),
    overlap.evaluator(),
    pixel_curve.EVALUATOR,
    thresholds.EVALUATOR,
    boundary.evaluator(),
    boxes.evaluator(),
    classification.EVALUATOR,
    calibration.EVALUATOR,
)


def _predict(mask, probabilities=(0.7, 0.2, 0.1)):
    return evaluation.ImagePrediction(0, np.array(probabilities), np.asarray(mask, np.float32), {})


def _truth(mask, label=0, boxes=_NO_BOXES, ignored=None):
    return evaluation.Truth(label, None if mask is None else np.asarray(mask, bool), boxes, ignored)


def _rows(pairs, used=_MASK_EVALUATORS):
    rows = []
    for prediction, truth in pairs:
        row = {
            "label": truth.label,
            "predicted": prediction.predicted,
            "probabilities": prediction.probabilities.tolist(),
        }
        for evaluator in used:
            row |= evaluator.score(prediction, truth)
        rows.append(row)
    return rows


def _values(pairs, used=_MASK_EVALUATORS):
    rows = _rows(pairs, used)
    return intervals.values(evaluation.measure(rows, used), len(rows))


def _random_pairs(count=7, size=(40, 37), seed=0, **options):
    """Smooth random masks, and true masks that agree with them in part."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(count):
        field = ndimage.gaussian_filter(rng.normal(size=size), 4)
        scores = np.clip(0.5 + 4 * (field + 0.5 * ndimage.gaussian_filter(rng.normal(size=size), 3)), 0, 1)
        probabilities = rng.dirichlet(np.ones(7))
        pairs.append((_predict(scores, probabilities), _truth(field > 0.02, label=int(rng.integers(7)), **options)))
    return pairs


def test_overlap_equals_plain_loops():
    pairs = _random_pairs()
    found = _values(pairs)
    iou, counts = {"foreground": [], "background": []}, np.zeros(4)
    for prediction, truth in pairs:
        p, t = prediction.mask >= 0.5, truth.mask
        counts += [(p & t).sum(), (p & ~t).sum(), (~p & t).sum(), (~p & ~t).sum()]
        iou["foreground"].append((p & t).sum() / (p | t).sum())
        iou["background"].append((~p & ~t).sum() / (~p | ~t).sum())
    tp, fp, fn, tn = counts
    assert found["iou_foreground"] == pytest.approx(100 * np.mean(iou["foreground"]))
    assert found["iou_background"] == pytest.approx(100 * np.mean(iou["background"]))
    assert found["micro_f1_foreground"] == pytest.approx(200 * tp / (2 * tp + fp + fn))
    assert found["micro_miou"] == pytest.approx(50 * (tp / (tp + fp + fn) + tn / (tn + fp + fn)))
    assert found["true_positive_rate"] == pytest.approx(100 * tp / (tp + fn))
    assert found["true_negative_rate"] == pytest.approx(100 * tn / (tn + fp))


def test_pxap_is_average_precision_of_the_binned_scores():
    pairs = _random_pairs()
    scores = np.concatenate([np.minimum(np.floor(p.mask * 1000), 999).ravel() for p, _ in pairs])
    true = np.concatenate([t.mask.ravel() for _, t in pairs])
    assert _values(pairs)["pxap"] == pytest.approx(100 * sklearn_metrics.average_precision_score(true, scores))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_pxap_of_a_constant_mask_is_the_share_of_the_foreground(value):
    true = np.zeros((20, 30), bool)
    true[:5] = True
    assert _values([(_predict(np.full((20, 30), value)), _truth(true))])["pxap"] == pytest.approx(25)


def test_perfect_masks():
    true = np.zeros((64, 64), bool)
    true[10:40, 20:50] = True
    found = _values([(_predict(true), _truth(true))])
    hundred = ("f1_foreground", "f1_background", "iou_foreground", "pxap", "surface_dice", "f1_foreground_best")
    assert {name: found[name] for name in hundred} == dict.fromkeys(hundred, pytest.approx(100))
    assert found["hd95"] == 0 and found["max_box_acc"] == found["max_box_acc_v2"] == found["top1_localization"] == 100


def test_ignored_pixels_do_not_count():
    pairs = _random_pairs(count=1)
    (prediction, truth), ignored = pairs[0], np.zeros((40, 37), bool)
    ignored[:, 20:] = True
    cut = (_predict(prediction.mask[:, :20], prediction.probabilities), _truth(truth.mask[:, :20], truth.label))
    whole = (prediction, _truth(truth.mask, truth.label, ignored=ignored))
    used = (dice.evaluator(), overlap.evaluator(), pixel_curve.EVALUATOR, thresholds.EVALUATOR)
    assert _values([whole], used) == pytest.approx(_values([cut], used))
    changed = np.where(ignored, 1 - prediction.mask, prediction.mask)
    of_outlines = [_values([pair], (boundary.evaluator(),)) for pair in (whole, (_predict(changed), whole[1]))]
    assert of_outlines[0] == of_outlines[1]


def test_masks_are_of_truth_values():
    """Of 0 and 1 as numbers, the complement would be 255 and 254."""
    with pytest.raises(ValueError, match="mask has numbers of type uint8; give bool"):
        evaluation.Truth(0, np.ones((4, 4), np.uint8), _NO_BOXES)


def test_ignored_pixels_are_in_no_box():
    """A square that is found, and what is found in a strip that nobody annotated; the strip has no minimum."""
    true, ignored = np.zeros((2, 64, 64), bool)
    true[10:30, 10:30] = ignored[50:, :] = True
    mask = np.where(true, 0.9, 0.2) + 0.6 * ignored
    found = _values([(_predict(mask), _truth(true, ignored=ignored))], (boxes.evaluator(),))
    assert found["gt_known_localization"] == found["max_box_acc"] == found["max_box_acc_v2"] == 100
    assert _values([(_predict(mask), _truth(true))], (boxes.evaluator(),))["gt_known_localization"] == 0


def test_thresholds_are_searched_in_their_order():
    """A published evaluator looked the best one up in a reversed list."""
    true = np.zeros((10, 100), bool)
    true[:, :30] = True
    scores = np.where(true, 0.7, 0.6) * np.ones((10, 100))
    rows = _rows([(_predict(scores), _truth(true))])
    best = thresholds.best_threshold(rows)
    assert 0.6 < best <= 0.7
    found = intervals.values(thresholds.at_threshold(rows, best), 1)
    assert found == {"f1_foreground_validated": 100, "f1_background_validated": 100}
    assert intervals.values(thresholds.at_threshold(rows, 0.5), 1)["f1_background_validated"] == 0


def test_thresholds_at_which_nothing_is_defined_are_not_the_best():
    """Without any true foreground, F1+ is undefined where nothing is found."""
    rows = _rows([(_predict(np.full((4, 4), 0.3)), _truth(np.zeros((4, 4))))])
    assert thresholds.best_threshold(rows) == 0.301  # F1- is 100 from there on
    assert _values([(_predict(np.full((4, 4), 0.3)), _truth(np.zeros((4, 4))))])["f1_background_best"] == 100


def test_the_best_threshold_is_that_of_a_search():
    pairs = _random_pairs(count=3, size=(20, 19))
    rows = _rows(pairs)

    def mean_f1(threshold):
        binned = [np.floor(p.mask * 1000) >= threshold for p, _ in pairs]
        masks = [t.mask for _, t in pairs]
        return [100 * np.mean([dice.dice(f(p), f(t)) for p, t in zip(binned, masks)]) for f in (lambda m: m, np.invert)]

    means = np.array([mean_f1(threshold) for threshold in range(1000)])
    best = means.sum(axis=1).argmax()
    assert thresholds.best_threshold(rows) == best / 1000
    found = _values(pairs)
    assert [found["f1_foreground_best"], found["f1_background_best"]] == pytest.approx(means[best])
    # F1 of the pooled pixels is maximised separately.
    binned = np.concatenate([np.floor(p.mask * 1000).ravel() for p, _ in pairs])
    true = np.concatenate([t.mask.ravel() for _, t in pairs])
    precision, recall, _ = sklearn_metrics.precision_recall_curve(true, binned)
    pooled = np.max(200 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert found["micro_f1_foreground_best"] == pytest.approx(pooled)


def test_outlines_equal_a_search_over_all_pairs():
    for prediction, truth in _random_pairs(count=3):
        predicted = prediction.mask >= 0.5
        points = []
        for mask in (predicted, truth.mask):
            padded = np.pad(mask, 1)
            inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
            points.append(np.argwhere(mask & ~inner))
        between = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(-1))
        distances = np.concatenate([between.min(1), between.min(0)])
        found = _values([(prediction, truth)])
        assert found["hd95"] == pytest.approx(np.percentile(distances, 95))
        assert found["surface_dice"] == pytest.approx(100 * np.mean(distances <= 2))


@pytest.mark.parametrize(
    ("predicted", "true", "hd95", "surface"), [(0, 1, None, 0), (1, 0, None, 0), (0, 0, None, None), (1, 1, 0, 100)]
)
def test_empty_masks_have_no_distance(predicted, true, hd95, surface):
    found = _values([(_predict(np.full((8, 8), predicted)), _truth(np.full((8, 8), true)))])
    assert found["hd95"] == hd95 and found["surface_dice"] == surface


def test_images_without_a_mask_are_left_out():
    pairs = _random_pairs(count=4)
    without = [(p, _truth(None, t.label)) for p, t in pairs[:2]]
    used = _MASK_EVALUATORS[:-2]
    assert _values([*without, *pairs[2:]], used) == pytest.approx(_values(pairs[2:], used))
    found = _values(without)
    assert found["pxap"] is None and found["iou_foreground"] is None and "max_box_acc" not in found
    assert found["classification_error"] is not None and thresholds.best_threshold(_rows(without)) is None


def test_f1_of_two_empty_masks_does_not_count():
    nothing, everything = np.zeros((4, 4)), np.ones((4, 4))
    pairs = [(_predict(mask), _truth(mask)) for mask in (nothing, everything)] + [(_predict(nothing), _truth(None))]
    assert _values(pairs, (dice.evaluator(),)) == {"f1_foreground": 100, "f1_background": 100}
    one_wrong = [*pairs[:1], (_predict(nothing), _truth(everything))]
    assert _values(one_wrong, (dice.evaluator(),))["f1_foreground"] == 0
    assert _values(pairs[:1], (dice.evaluator(),))["f1_foreground"] is None


def test_calibration_by_hand():
    """Confidences 0.9 (right), 0.9 (wrong) and 0.4 (right): |1 - 1.8| and |1 - 0.4| over three images."""
    pairs = [
        (_predict(np.ones((2, 2)), probabilities), _truth(None, label))
        for probabilities, label in (((0.9, 0.1, 0), 0), ((0.05, 0.9, 0.05), 0), ((0.3, 0.3, 0.4), 2))
    ]
    expected = 100 * (abs(1 - 1.8) + abs(1 - 0.4)) / 3
    assert _values(pairs)["class_calibration_error"] == pytest.approx(expected)


def test_mask_calibration_by_hand():
    true = np.zeros((10, 10), bool)
    true[:, :4] = True
    scores = np.where(np.arange(10) < 5, 0.8, 0.1) * np.ones((10, 10))
    # 50 pixels of 0.8 of which 40 are foreground, 50 of 0.1 of which none is; bins are counted at their centres.
    expected = 100 * (abs(40 - 50 * 0.8005) + abs(0 - 50 * 0.1005)) / 100
    assert _values([(_predict(scores), _truth(true))])["mask_calibration_error"] == pytest.approx(expected, abs=0.02)


def test_errors_and_confusion_equal_scikit_learn():
    pairs = _random_pairs(count=60)
    rows = _rows(pairs)
    labels, predicted = ([row[name] for row in rows] for name in ("label", "predicted"))
    probabilities = np.array([row["probabilities"] for row in rows])
    found = _values(pairs)
    assert found["classification_error"] == pytest.approx(100 * np.mean(np.not_equal(labels, predicted)))
    top5 = sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=range(7))
    assert found["top5_error"] == pytest.approx(100 * (1 - top5))
    expected = sklearn_metrics.confusion_matrix(labels, predicted, labels=range(7))
    np.testing.assert_array_equal(classification.confusion(rows), expected)


def test_balanced_error_and_the_error_of_each_class():
    """Of 8 images of class 0 one is wrong, of 2 of class 1 one is; of class 2 there is none."""
    labels, predicted = [0] * 8 + [1] * 2, [0] * 7 + [1] + [1, 0]
    rows = [{"label": a, "predicted": b, "probabilities": np.eye(3)[b]} for a, b in zip(labels, predicted)]
    metric = classification.EVALUATOR.metrics(rows)["balanced_error"]
    assert classification.EVALUATOR.summarize(rows)["balanced_error"] == pytest.approx((12.5 + 50) / 2)
    expected = 100 * (1 - sklearn_metrics.balanced_accuracy_score(labels, predicted))
    assert metric.values(np.ones((1, 10)))[0] == pytest.approx(expected)
    # Each image as often as drawn; a resample without class 1 has the error of class 0.
    weights = np.zeros((2, 10))
    weights[0, [0, 7, 8]], weights[1, [0, 7]] = (1, 3, 2), 1
    np.testing.assert_allclose(metric.values(weights), [(75 + 0) / 2, 50])
    values = [one.values(np.ones((1, 10)))[0] for one in classification.class_errors(rows, 3)]
    np.testing.assert_allclose(values, [12.5, 50, np.nan])


def test_the_table_of_the_classes():
    split = dataclasses.replace(
        splits.make_split([(32, 32)] * 5, num_classes=3),
        labels=np.array([0, 0, 0, 1, 1]),
        patients=("p", "p", "", "q", "q"),
    )
    predicted = [0, 0, 1, 0, 1]
    rows = [{"label": a, "predicted": b, "probabilities": [0.5] * 3} for a, b in zip(split.labels, predicted)]
    found = class_table.describe(rows, split, np.array([0, 1, 1, 2]))
    a, b, c = (found["classes"][name] for name in "abc")
    assert (a["num_train"], a["num_images"], a["error"]) == (1, 3, pytest.approx(100 / 3))
    assert (b["num_train"], b["num_images"], b["error"], b["low"], b["high"]) == (2, 2, 50, 50, 50)  # of one patient
    assert c == {"num_train": 1, "num_images": 0, "error": None, "low": None, "high": None}
    assert found["majority_class"] == {"class": "b", "classification_error": pytest.approx(60), "balanced_error": 50}


def test_intervals_equal_the_bootstrap_of_a_mean():
    rng = np.random.default_rng(1)
    values = rng.normal(10, 3, 80)
    metric = evaluators.Metric(evaluators.ratio(values), "%", "fixed")
    found = intervals.describe({"mean": metric}, 80)["mean"]
    assert found["value"] == pytest.approx(values.mean()) and found["threshold"] == "fixed" and found["unit"] == "%"
    error = values.std() / np.sqrt(80)
    assert found["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert found["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert intervals.describe({"mean": metric}, 80) == {"mean": found}


def test_whole_patients_are_drawn():
    """Equal values within a patient: the interval is that of ten patients, not of a hundred images."""
    values, patients = np.repeat(np.arange(10.0), 10), np.repeat([f"p{i}" for i in range(10)], 10)
    metrics = {"mean": evaluators.Metric(evaluators.ratio(values), "")}
    by_image, by_patient = (intervals.describe(metrics, 100, groups=groups)["mean"] for groups in ((), patients))
    widths = [found["high"] - found["low"] for found in (by_image, by_patient)]
    assert widths[1] == pytest.approx(np.sqrt(10) * widths[0], rel=0.15)


def test_what_cannot_be_counted_has_no_interval():
    metric = evaluators.Metric(evaluators.mean_of_known([None, np.nan]), "%")
    found = intervals.describe({"mean": metric}, 2)["mean"]
    assert found == {"value": None, "low": None, "high": None, "unit": "%", "threshold": None}


def test_baselines_cover_what_they_say():
    assert baselines.all_ones((3, 5)).sum() == 15
    box = baselines.center_box((100, 200))
    assert box.sum() == pytest.approx(10000, rel=0.03) and box[50, 100] == 1 and box[:14].sum() == 0
    np.testing.assert_array_equal(box, box[::-1, ::-1])


def test_the_order_of_the_images_does_not_matter():
    pairs = _random_pairs()
    assert _values(pairs) == pytest.approx(_values(pairs[::-1]))
