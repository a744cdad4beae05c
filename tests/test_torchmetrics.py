"""Overlap, average precision and calibration against torchmetrics, on random masks and classes."""

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch")
torchmetrics = pytest.importorskip("torchmetrics")
pytestmark = pytest.mark.witness

from torchmetrics import classification as theirs  # noqa: E402

from minmax_jax import evaluation  # noqa: E402
from minmax_jax.evaluation import intervals  # noqa: E402
from minmax_jax.evaluation.metrics import calibration, dice, overlap, pixel_curve  # noqa: E402

_NUM_CLASSES = 6


@pytest.fixture(scope="module")
def pairs():
    """Soft masks of any shape, true masks that agree in part, and classes that are right more often than not."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        size = tuple(rng.integers(20, 50, 2))
        field = ndimage.gaussian_filter(rng.normal(size=size), 3)
        scores = np.clip(0.5 + 4 * (field + 0.5 * ndimage.gaussian_filter(rng.normal(size=size), 2)), 0, 1)
        label = int(rng.integers(_NUM_CLASSES))
        probabilities = rng.dirichlet(np.where(np.arange(_NUM_CLASSES) == label, 3, 0.7))
        prediction = evaluation.ImagePrediction(0, probabilities, scores.astype(np.float32), {})
        found.append((prediction, evaluation.Truth(label, field > 0.02, np.zeros((0, 4)))))
    return found


@pytest.fixture(scope="module")
def ours(pairs):
    used = (dice.evaluator(), overlap.evaluator(), pixel_curve.EVALUATOR, calibration.EVALUATOR)
    rows = []
    for prediction, truth in pairs:
        row = {"label": truth.label, "predicted": prediction.predicted}
        row["probabilities"] = prediction.probabilities.tolist()
        rows.append(row | {name: value for one in used for name, value in one.score(prediction, truth).items()})
    return intervals.values(evaluation.measure(rows, used), len(rows))


def _tensors(pairs, *, invert=False):
    """(scores, true) of each image, flat; of the background with `invert`."""
    for prediction, truth in pairs:
        scores, true = torch.tensor(prediction.mask).ravel(), torch.tensor(truth.mask).ravel().int()
        yield ((scores < 0.5).float(), 1 - true) if invert else ((scores >= 0.5).float(), true)


@pytest.mark.parametrize("region", ["foreground", "background"])
def test_dice_and_iou_of_each_image(pairs, ours, region):
    images = list(_tensors(pairs, invert=region == "background"))
    for name, metric in (("f1", theirs.BinaryF1Score()), ("iou", theirs.BinaryJaccardIndex())):
        assert ours[f"{name}_{region}"] == pytest.approx(100 * np.mean([float(metric(*image)) for image in images]))


def test_overlap_of_all_pixels(pairs, ours):
    scores, true = (torch.cat(part) for part in zip(*_tensors(pairs)))
    values = {
        "micro_f1_foreground": theirs.BinaryF1Score(),
        "true_positive_rate": theirs.BinaryRecall(),
        "true_negative_rate": theirs.BinarySpecificity(),
        "micro_miou": theirs.MulticlassJaccardIndex(2),
    }
    expected = {name: 100 * float(metric(scores, true)) for name, metric in values.items()}
    assert {name: ours[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_pxap_is_average_precision_of_the_binned_scores(pairs, ours):
    binned = [np.minimum(np.floor(prediction.mask * 1000), 999) / 1000 for prediction, _ in pairs]
    scores = torch.tensor(np.concatenate([part.ravel() for part in binned]))
    true = torch.tensor(np.concatenate([truth.mask.ravel() for _, truth in pairs])).int()
    assert ours["pxap"] == pytest.approx(100 * float(theirs.BinaryAveragePrecision()(scores, true)), rel=1e-5)


def test_class_calibration_error(pairs, ours):
    probabilities = torch.tensor(np.stack([prediction.probabilities for prediction, _ in pairs]))
    labels = torch.tensor([truth.label for _, truth in pairs])
    metric = theirs.MulticlassCalibrationError(_NUM_CLASSES, n_bins=15, norm="l1")
    assert ours["class_calibration_error"] == pytest.approx(100 * float(metric(probabilities, labels)), rel=1e-5)
    assert ours["class_calibration_error"] > 1
