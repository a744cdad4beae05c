"""Objects that are found, fitted and counted: by hand, by plain loops over all pixels, and through whole programs."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance

from minmax_jax import evaluation
from minmax_jax.base.errors import OptionError
from minmax_jax.data import load, synthetic
from minmax_jax.data.importing import image_folder, mask_rules, records
from minmax_jax.evaluation import intervals, objects
from minmax_jax.evaluation.metrics import instances
from minmax_jax.runs import heat_maps
from tests import encoded, own_layout

_NAMES = ("object_f1", "object_dice", "object_hausdorff", "count_error", "count_bias")


def _row(mask, numbers, *, ignored=None, **options):
    numbers = None if numbers is None else np.asarray(numbers, np.int32)
    truth = evaluation.Truth(0, None if numbers is None else numbers > 0, np.zeros((0, 4)), ignored, numbers)
    prediction = evaluation.ImagePrediction(0, np.ones(1), np.asarray(mask, np.float32), {})
    return instances.evaluator(**{"min_area": 1} | options).score(prediction, truth)


def _values(*rows):
    return intervals.values(instances.evaluator().metrics(rows), len(rows))


def _columns(height, width, **spans):
    """[height, width] numbers of blocks over the full height, by their first and last column."""
    numbers = np.zeros((height, width), np.int32)
    for number, (first, last) in enumerate(spans.values(), 1):
        numbers[:, first : last + 1] = number
    return numbers


def _check(row, f1, dice, hausdorff):
    assert [row["object_f1"], row["object_dice"]] == pytest.approx([f1, dice])
    assert row["object_hausdorff"] == pytest.approx(hausdorff)


def test_one_prediction_over_two_touching_objects():
    row = _row(np.ones((4, 8)), _columns(4, 8, a=(0, 3), b=(4, 7)))
    _check(row, f1=2 / 3, dice=2 * 16 / (16 + 32), hausdorff=4)
    assert (row["num_objects"], row["num_true_objects"], row["num_found_objects"]) == (1, 2, 1)
    found = _values(row)
    assert [found[name] for name in _NAMES] == pytest.approx([200 / 3, 200 / 3, 4, 1, -1])


def test_two_predictions_in_one_object_each_below_half():
    row = _row(_columns(4, 9, a=(0, 3), b=(5, 8)) > 0, _columns(4, 9, a=(0, 8)))
    _check(row, f1=0, dice=2 * 16 / (16 + 36), hausdorff=5)
    assert _values(row)["count_error"] == _values(row)["count_bias"] == 1


def test_half_of_an_object_finds_it():
    row = _row(_columns(4, 8, a=(0, 3), b=(5, 7)) > 0, _columns(4, 8, a=(0, 7)))
    # Of the predicted objects of 16 and 12 pixels, the first is the partner of the true one.
    dice = (2 * 16 / 48 + (16 * (2 * 16 / 48) + 12 * (2 * 12 / 44)) / 28) / 2
    _check(row, f1=2 / 3, dice=dice, hausdorff=(4 + (16 * 4 + 12 * 5) / 28) / 2)


def test_an_object_is_found_once():
    """Of two parts with one number, two predicted objects cover exactly half each."""
    numbers = np.minimum(_columns(4, 9, a=(0, 3), b=(5, 8)), 1)
    row = _row(numbers > 0, numbers)
    assert row["num_found_objects"] == 1 and row["object_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("is_turned", [False, True])
def test_the_longer_of_both_directions_counts(is_turned):
    line, point = np.zeros((3, 12), int), np.zeros((3, 12), int)
    line[1, :10], point[1, 0] = 1, 1
    row = _row(point > 0, line) if is_turned else _row(line > 0, point)
    _check(row, f1=0 if is_turned else 1, dice=2 / 11, hausdorff=9)


def test_the_farthest_pixel_may_lie_inside():
    square, ring = np.ones((7, 7), int), np.ones((7, 7), int)
    ring[1:-1, 1:-1] = 0
    assert _row(ring > 0, square)["object_hausdorff"] == _row(square > 0, ring)["object_hausdorff"] == 3


def test_without_overlap_the_minimum_hausdorff_distance_counts():
    """Nearest to the true object is a long one, whose far end is 29 pixels away; the partner is six rows below."""
    numbers, mask = np.zeros((8, 40), int), np.zeros((8, 40), bool)
    numbers[0, :2] = 1
    mask[0, 3:31] = mask[6, :2] = True
    row = _row(mask, numbers)
    _check(row, f1=0, dice=0, hausdorff=(6 + (28 * 29 + 2 * 6) / 30) / 2)


@pytest.mark.parametrize(
    ("mask", "numbers", "share", "hausdorff"), [(0, 0, None, None), (0, 1, 0, None), (1, 0, 0, None), (1, 1, 1, 0)]
)
def test_without_objects(mask, numbers, share, hausdorff):
    row = _row(np.full((4, 4), mask), np.full((4, 4), numbers))
    assert (row["object_f1"], row["object_dice"], row["object_hausdorff"]) == (share, share, hausdorff)
    found = _values(row)
    percent = None if share is None else 100 * share
    assert [found[name] for name in _NAMES] == [percent, percent, hausdorff, abs(mask - numbers), mask - numbers]


def test_the_objects_of_all_images_count_together():
    """One of one object is found exactly in the first image, none of three in the second, which predicts none."""
    first = _row(np.ones((2, 2)), np.ones((2, 2)))
    second = _row(np.zeros((2, 8)), _columns(2, 8, a=(0, 1), b=(3, 4), c=(6, 7)))
    found = _values(first, second)
    assert found["object_f1"] == pytest.approx(100 * 2 * 1 / (1 + 4))
    assert found["object_dice"] == pytest.approx(100 * (4 / 16 + 4 / 4) / 2)
    assert (found["object_hausdorff"], found["count_error"], found["count_bias"]) == (0, 1.5, -1.5)
    unknown = _row(np.ones((2, 2)), None)
    assert set(unknown.values()) == {None} and _values(first, unknown, second) == found


def test_images_whose_objects_are_not_told_apart_have_no_such_metric():
    assert instances.evaluator().metrics([_row(np.ones((4, 4)), None)] * 2) == {}


def test_small_regions_of_the_prediction_are_no_objects():
    mask = _columns(5, 12, a=(0, 2), b=(6, 9)) > 0  # 15 and 20 pixels
    numbers = _columns(5, 12, a=(0, 0), b=(6, 9))
    counts = [_row(mask, numbers, min_area=minimum)["num_objects"] for minimum in (15, 16, 20, 21)]
    assert counts == [2, 1, 1, 0] and instances.MIN_AREA == 16
    assert _row(mask, numbers)["num_true_objects"] == 2  # of five pixels, and of twenty


def test_what_is_predicted_on_ignored_pixels_does_not_matter():
    numbers, ignored = _columns(4, 12, a=(0, 3), b=(8, 11)), _columns(4, 12, a=(4, 7)) > 0
    rows = [_row(mask, numbers, ignored=ignored) for mask in (np.ones((4, 12)), numbers > 0)]
    assert rows[0]["object_f1"] == rows[0]["object_dice"] == 1 and rows[0]["num_objects"] == 2
    assert _values(rows[0]) == _values(rows[1]) and _values(_row(np.ones((4, 12)), numbers))["object_f1"] < 100


def test_eight_neighbours_and_the_threshold():
    mask = np.diag([0.5, 0.5, 0.5, 0.4])
    assert _row(mask, np.eye(4, dtype=int))["num_objects"] == 1
    assert _row(mask, np.eye(4, dtype=int), threshold=0.4)["object_dice"] == 1


def test_options_are_checked():
    with pytest.raises(OptionError, match="threshold=1"):
        instances.evaluator(threshold=1)
    with pytest.raises(OptionError, match="min_area=0"):
        instances.evaluator(min_area=0)


def _random_numbers(rng, size, count):
    """Touching and separate objects: cells around random points, with gaps; numbers with gaps, too."""
    pixels = np.stack(np.mgrid[: size[0], : size[1]], axis=-1).reshape(-1, 2)
    points = rng.uniform(0, size, (count, 2))
    nearest = distance.cdist(pixels, points).argmin(axis=1).reshape(size)
    field = ndimage.gaussian_filter(rng.normal(size=size), 2)
    return np.where(field > -0.05, 3 * nearest + 2, 0)


def _regions(mask):
    """Regions of eight neighbours, by flooding, as lists of pixels."""
    mask, found = mask.copy(), []
    while mask.any():
        stack, region = [tuple(np.argwhere(mask)[0])], []
        while stack:
            y, x = stack.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]:
                mask[y, x] = False
                region.append((y, x))
                stack += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        found.append(np.array(region))
    return found


def _by_loops(mask, numbers, min_area):
    """F1, Dice and Hausdorff distance as shares, and the difference of the counts."""
    true = [np.argwhere(numbers == number) for number in np.unique(numbers[numbers > 0])]
    found = [region for region in _regions(mask) if len(region) >= min_area]
    shared = np.array([[len({*map(tuple, g)} & {*map(tuple, p)}) for p in found] for g in true])
    between = np.array([[distance.cdist(g, p) for p in found] for g in true], object)
    hausdorff = np.vectorize(lambda d: max(d.min(axis=0).max(), d.min(axis=1).max()), otypes=[float])(between)

    def mean(some, others, shared, hausdorff):
        dice, distances = [], []
        for index, pixels in enumerate(some):
            partner = shared[index].argmax()
            dice.append(2 * shared[index, partner] / (len(pixels) + len(others[partner])))
            distances.append(hausdorff[index, partner] if shared[index].any() else hausdorff[index].min())
        areas = np.array([len(pixels) for pixels in some])
        return np.array([areas @ dice, areas @ distances]) / areas.sum()

    dice, distances = (mean(true, found, shared, hausdorff) + mean(found, true, shared.T, hausdorff.T)) / 2
    hits = {column.argmax() for column in shared.T if 2 * column.max() >= len(true[column.argmax()])}
    return 2 * len(hits) / (len(true) + len(found)), dice, distances, len(found) - len(true)


@pytest.mark.parametrize("seed", range(7))
def test_random_objects_equal_loops_over_all_pixels(seed):
    rng = np.random.default_rng(seed)
    size, min_area = (31, 40), 4
    numbers = _random_numbers(rng, size, 2 + 2 * seed)
    mask = ndimage.gaussian_filter(rng.normal(size=size), 0.8 + 0.2 * seed) > 0.02
    mask[:, : 5 * (seed % 3)] = False  # true objects that no prediction overlaps
    expected = _by_loops(mask, numbers, min_area)
    row = _row(mask, numbers, min_area=min_area)
    found = [row[name] for name in _NAMES[:3]] + [row["num_objects"] - row["num_true_objects"]]
    assert found == pytest.approx(expected) and 0 < row["object_dice"] < 1
    # Neither numbers nor directions matter, unless two partners share equally many pixels; none do here.
    renumbered = np.where(numbers > 0, 200 - numbers, 0)[::-1, ::-1].T
    turned = _row(mask[::-1, ::-1].T, renumbered, min_area=min_area)
    assert [turned[name] for name in _NAMES[:3]] == pytest.approx(expected[:3])


def test_the_minimum_distance_is_found_among_all():
    rng = np.random.default_rng(3)
    some, others = (objects.connected(ndimage.gaussian_filter(rng.normal(size=(60, 50)), 1) > 0.25) for _ in range(2))
    assert min(len(some), len(others)) > 20
    for index in range(len(some)):
        pixels = np.argwhere(some.numbers == index + 1)
        between = [distance.cdist(pixels, np.argwhere(others.numbers == j + 1)) for j in range(len(others))]
        minimum = min(max(d.min(axis=0).max(), d.min(axis=1).max()) for d in between)
        assert objects.nearest(some, others, index) == pytest.approx(minimum)


def test_true_masks_of_the_built_in_images_are_counted_right():
    split = synthetic.load("test", 12, config=synthetic.SyntheticConfig())
    predictions = [evaluation.ImagePrediction(i, None, split.read_mask(i).astype(np.float32), {}) for i in range(12)]
    rows = evaluation.score(predictions, split, [instances.evaluator()])
    assert [_values(*rows)[name] for name in _NAMES] == [100, 100, 0, 0, 0]
    assert {row["num_true_objects"] for row in rows} == {1, 2, 3}


def test_heat_maps_for_masks_that_number_their_objects(tmp_path):
    """Two touching objects an image, of 480 pixels each, and a heat map that cannot separate them."""
    numbers = 7 * _columns(*own_layout.SIZE, a=(0, 11), b=(12, 23)).astype(np.uint8)
    for seed, class_name in enumerate(4 * ("cat", "dog")):
        path = f"{class_name}/{seed}.png"
        own_layout.put(f"images/{path}", encoded.encode(own_layout.pixels(seed)))(tmp_path)
        own_layout.put(f"masks/{path}", encoded.encode(numbers))(tmp_path)
        own_layout.put(f"maps/{path}", encoded.encode(np.uint8(255 * (numbers > 0))))(tmp_path)
    for name, is_numbered in (("numbered", True), ("plain", False)):
        rule = mask_rules.parse(">0", instances=is_numbered)
        raw = image_folder.read_raw(str(tmp_path / "images"), masks=str(tmp_path / "masks"), mask_rule=rule)
        records.prepare(name, lambda scratch: raw, tmp_path / "out")
    found, plain = (
        heat_maps.evaluate_folder(tmp_path / "maps", name, "test", data_dir=str(tmp_path / "out"))["metrics"]
        for name in ("numbered", "plain")
    )
    assert not set(plain) & set(_NAMES) and set(found) == {*plain, *_NAMES}
    assert [found[name]["value"] for name in _NAMES] == pytest.approx([200 / 3, 200 / 3, 12, 1, -1])
    assert {found[name]["threshold"] for name in _NAMES} == {"fixed"}
    assert [found[name]["unit"] for name in _NAMES] == ["%", "%", "pixels", "objects", "objects"]
    # A mask of ones covers both objects; either is its partner.
    assert found["object_dice"]["baselines"]["all_ones"] == pytest.approx(100 * 2 * 480 / (480 + 1920))
    assert found["count_bias"]["baselines"]["all_ones"] == -1
    assert load.load(str(tmp_path / "out"), "plain")["test"].read_instances(0) is None
