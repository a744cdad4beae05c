"""How long PxAP and the boxes of all 256 thresholds take, against an evaluation of one threshold after another.

    python -m benchmarks.thresholds [--num_images=80] [--height=522] [--width=775] [--json=FILE]

Soft random masks of the size of the GlaS test images. The yardstick is plain NumPy and SciPy: for each threshold it
counts the pixels of each kind, labels the regions and takes their boxes. Both give the same numbers, which is checked.
One process, one thread; docs/steps.md has the figures.
"""

import pathlib
import time

from absl import app, flags
import numpy as np
from scipy import ndimage

from minmax_jax.base import strict_json
from minmax_jax.evaluation import Truth, evaluators, intervals
from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.evaluation.metrics import boxes, pixel_curve
from minmax_jax.ops.cpu import components

_NUM_IMAGES = flags.DEFINE_integer("num_images", 80, "Masks.", 1)
_HEIGHT = flags.DEFINE_integer("height", 522, "Pixels.", 32)
_WIDTH = flags.DEFINE_integer("width", 775, "Pixels.", 32)
_JSON = flags.DEFINE_string("json", None, "File for the figures.")
_NUM_THRESHOLDS = 256


def main(argv: list[str]) -> None:
    del argv
    pairs = [_draw(seed) for seed in range(_NUM_IMAGES.value)]
    components.box_overlaps(np.zeros((2, 2), np.uint8), np.zeros((1, 4), int))  # builds the kernel
    start = time.perf_counter()
    found = _measure(pairs)
    middle = time.perf_counter()
    expected = _measure_one_by_one(pairs)
    end = time.perf_counter()
    for name, value in expected.items():
        # The yardstick's 256 thresholds are coarser than the 1000 of PxAP; boxes are the same.
        np.testing.assert_allclose(found[name], value, atol=0.2 if name == "pxap" else 1e-9, err_msg=name)
    figures = {
        "num_images": len(pairs),
        "seconds": middle - start,
        "yardstick_seconds": end - middle,
        "ratio": (middle - start) / (end - middle),
        "metrics": found,
    }
    print(strict_json.dumps(figures, indent=2))
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(strict_json.dumps(figures, indent=2))


def _draw(seed: int) -> tuple[ImagePrediction, Truth]:
    rng, size = np.random.default_rng(seed), (_HEIGHT.value, _WIDTH.value)
    field = ndimage.zoom(rng.normal(size=(size[0] // 32, size[1] // 32)), 32, order=1)
    field = np.resize(field, size) + rng.normal(0, 0.1, size)
    scores = 1 / (1 + np.exp(-2 * field))
    smooth = np.roll(ndimage.gaussian_filter(field, 6), 40, axis=1)
    true = smooth > np.quantile(smooth, 0.9)
    return ImagePrediction(0, np.array([1.0, 0.0]), scores.astype(np.float32), {}), Truth(0, true, np.zeros((0, 4)))


def _measure(pairs: list[tuple[ImagePrediction, Truth]]) -> dict[str, float | None]:
    of_boxes = boxes.evaluator()
    classes = {"label": 0, "probabilities": [1.0, 0.0]}
    rows = [classes | pixel_curve.EVALUATOR.score(*pair) | of_boxes.score(*pair) for pair in pairs]
    metrics = evaluators.measure(rows, [pixel_curve.EVALUATOR, of_boxes])
    values = intervals.values(metrics, len(rows))
    return {name: values[name] for name in ("pxap", "max_box_acc", "max_box_acc_v2")}


def _measure_one_by_one(pairs: list[tuple[ImagePrediction, Truth]]) -> dict[str, float]:
    hits, found, total = np.zeros(_NUM_THRESHOLDS), np.zeros(_NUM_THRESHOLDS), 0
    largest, best = np.zeros((2, len(pairs), _NUM_THRESHOLDS))
    for image, (prediction, truth) in enumerate(pairs):
        levels, true_boxes = boxes.quantize(prediction.mask_at((boxes.SIDE, boxes.SIDE))), boxes.true_boxes(truth)
        total += np.count_nonzero(truth.mask)
        for k in range(_NUM_THRESHOLDS):
            predicted = prediction.mask >= k / _NUM_THRESHOLDS
            hits[k] += np.count_nonzero(predicted & truth.mask)
            found[k] += np.count_nonzero(predicted)
            regions, count = ndimage.label(levels > int(k / _NUM_THRESHOLDS * levels.max()), np.ones((3, 3)))
            if count:
                slices = ndimage.find_objects(regions)
                of_regions = [(y.start, x.start, y.stop - 1, x.stop - 1) for y, x in slices]
                overlaps = components.box_iou(of_regions, true_boxes).max(axis=1)
                largest[image, k] = overlaps[np.bincount(regions.ravel())[1:].argmax()]
                best[image, k] = overlaps.max()
    precision, recall = hits[::-1] / np.maximum(found[::-1], 1), hits[::-1] / total
    v2 = [np.mean(best >= level, axis=0).max() for level in (0.3, 0.5, 0.7)]
    return {
        "pxap": 100 * float(np.sum(precision * np.diff(recall, prepend=0))),
        "max_box_acc": 100 * float(np.mean(largest >= 0.5, axis=0).max()),
        "max_box_acc_v2": 100 * float(np.mean(v2)),
    }


if __name__ == "__main__":
    app.run(main)
