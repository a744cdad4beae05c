"""Operations on splits."""

import concurrent.futures
import dataclasses
import pickle
import time

import numpy as np
import pytest

from minmax_jax.data import dataset, load
from minmax_jax.data.preprocessing import Preprocessing
from tests import splits


def test_subset_keeps_order_and_can_be_nested():
    split = splits.make_split([(32 + i, 40) for i in range(6)])
    some = dataset.subset(dataset.subset(split, [5, 1, 3, 0]), [3, 0])
    assert some.names == ("image_0", "image_5")
    np.testing.assert_array_equal(some.labels, split.labels[[0, 5]])
    np.testing.assert_array_equal(some.sizes, [[32, 40], [37, 40]])
    np.testing.assert_array_equal(some.read_image(1), split.read_image(5))
    np.testing.assert_array_equal(some.read_mask(0), split.read_mask(0))


def test_concatenate():
    first, second = splits.make_split([(32, 32)] * 2), splits.make_split([(33, 32)] * 3)
    both = dataset.concatenate(first, second)
    assert len(both) == 5
    np.testing.assert_array_equal(both.read_image(1), first.read_image(1))
    np.testing.assert_array_equal(both.read_image(4), second.read_image(2))
    np.testing.assert_array_equal(both.read_mask(2), second.read_mask(0))


def test_boxes_follow_their_images():
    boxes = [np.full((1, 4), index, np.float32) for index in range(3)]
    split = dataclasses.replace(splits.make_split([(32, 32)] * 3), read_boxes=boxes.__getitem__)
    both = dataset.concatenate(dataset.subset(split, [2, 0]), splits.make_split([(32, 32)]))
    np.testing.assert_array_equal(both.read_boxes(0), boxes[2])
    assert both.read_boxes(2).shape == (0, 4)


def test_instances_follow_their_images():
    numbers = [np.full((2, 2), index, np.int32) for index in range(3)]
    split = dataclasses.replace(splits.make_split([(64, 64)] * 3), read_instances=numbers.__getitem__)
    both = dataset.concatenate(dataset.subset(split, [2, 0]), splits.make_split([(32, 32)]))
    np.testing.assert_array_equal(both.read_instances(0), numbers[2])
    assert both.read_instances(2) is None
    kept = dataset.only_classes(dataset.preprocess(split, Preprocessing(scale=0.5)), ["b"])  # images 1
    np.testing.assert_array_equal(kept.read_instances(0), numbers[1])


def test_only_some_classes_with_labels_in_the_order_given():
    split = splits.make_split([(32, 32)] * 7, num_classes=3)  # a b c a b c a
    some = dataset.only_classes(split, ["c", "a"])
    assert some.class_names == ("c", "a")
    assert some.names == ("image_0", "image_2", "image_3", "image_5", "image_6")
    np.testing.assert_array_equal(some.labels, [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(some.read_image(3), split.read_image(5))


def test_splits_can_be_pickled_for_workers():
    split = dataset.cache_images(dataset.preprocess(splits.make_split([(64, 48)] * 3), Preprocessing(scale=0.75)))
    copy = pickle.loads(pickle.dumps(dataset.subset(split, [2, 0])))
    np.testing.assert_array_equal(copy.read_image(0), split.read_image(2))


def test_stratified_subsets_keep_the_shares_and_are_nested():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    small, large = (set(dataset.stratified(labels, count, seed=3)) for count in (20, 50))
    assert small < large and len(small) == 20
    counts = np.bincount(labels[list(large)])
    np.testing.assert_allclose(counts, [30, 15, 5], atol=1)
    assert small != set(dataset.stratified(labels, 20, seed=4))


def test_few_of_each_class_are_nested_by_share_and_by_number():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    nested = [{"fraction": 0.01}, {"count": 2}, {"fraction": 0.2}, {"fraction": 0.5}, {"fraction": 1.0}]
    sizes = [(1, 1, 1), (2, 2, 2), (12, 6, 2), (30, 15, 5), (60, 30, 10)]
    inner = set()
    for options, expected in zip(nested, sizes):
        chosen = dataset.few_per_class(labels, seed=3, **options)
        np.testing.assert_array_equal(np.bincount(labels[chosen]), expected)
        assert np.all(np.diff(chosen) > 0) and inner < set(chosen)
        inner = set(chosen)
    some, others = (dataset.few_per_class(labels, count=5, seed=seed) for seed in (3, 4))
    assert set(some) != set(others)


def test_a_class_with_too_few_examples_is_told():
    with pytest.raises(ValueError, match="train_per_class=11 must be at most 10"):
        dataset.few_per_class(np.array([0] * 60 + [1] * 10), count=11, seed=0)


@pytest.mark.parametrize(
    "size, scale, min_side, max_side, expected",
    [
        ((522, 775), 0.25, 0, 0, (130, 194)),  # 130.5 and 193.75, half to even
        ((300, 400), 1.0, 500, 0, (500, 667)),
        ((600, 800), 1.0, 500, 0, (600, 800)),
        ((100, 80), 0.5, 64, 0, (80, 64)),
        ((600, 800), 1.0, 0, 300, (300, 400)),
        ((300, 400), 1.0, 0, 300, (300, 400)),
        ((200, 401), 1.0, 0, 300, (200, 401)),
        ((90, 120), 1.0, 150, 150, (150, 200)),
    ],
)
def test_resized_sizes(size, scale, min_side, max_side, expected):
    split = dataset.preprocess(splits.make_split([size]), Preprocessing("none", scale, min_side, max_side))
    assert tuple(split.sizes[0]) == expected == split.read_image(0).shape[:2]
    assert split.read_mask(0).shape == size


def test_images_that_become_too_small_are_named():
    split = splits.make_split([(64, 64), (60, 90)])
    with pytest.raises(ValueError, match=r"'image_1' has \(30, 45\) pixels at scale=0.5.*Raise scale"):
        dataset.preprocess(split, Preprocessing(scale=0.5))


def test_the_typical_side_fits_into_half_of_the_images():
    split = splits.make_split([(40, 50), (70, 100), (300, 97)])  # small sides 40, 70 and 97
    assert dataset.typical_side(split, max_side=480) == 64
    assert dataset.typical_side(split, max_side=32) == 32


def test_cache_reads_once(caplog):
    reads = []
    split = splits.make_split([(512, 512)] * 2)
    counted = lambda index: reads.append(index) or split.read_image(index)
    with caplog.at_level("INFO"):
        cached = dataset.cache_images(dataclasses.replace(split, read_image=counted))
    assert caplog.messages == ["Caching all 2 images in memory (1.5 MiB)."]
    for _ in range(3):
        np.testing.assert_array_equal(cached.read_image(1), split.read_image(1))
    assert reads == [1]


def test_cache_keeps_the_first_images_that_fit_and_tells_of_them(caplog):
    reads = []
    split = splits.make_split([(512, 512), (1024, 512), (512, 512)])  # 0.75, 1.5 and 0.75 MiB
    counted = lambda index: reads.append(index) or split.read_image(index)
    with caplog.at_level("INFO"):
        cached = dataset.cache_images(dataclasses.replace(split, read_image=counted), max_gib=2.25 / 1024)
    assert caplog.messages == ["Caching 2 of 3 images in memory (2.2 of 3.0 MiB)."]
    for index in (2, 1, 0, 2, 1, 0):
        np.testing.assert_array_equal(cached.read_image(index), split.read_image(index))
    assert reads == [2, 1, 0, 2]


def test_threads_open_records_in_turn_and_once(monkeypatch):
    """Reading threads that load TFDS at the same time would wait for each other for ever."""
    inside, maximum = [], []

    def open_records(folder, split):
        inside.append(split)
        maximum.append(len(inside))
        time.sleep(0.05)
        inside.remove(split)
        return folder, split

    monkeypatch.setattr(load, "open_records", open_records)
    load._opened_records.cache_clear()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda index: load._open_in_turn("data", ("a", "b")[index % 2], 0), range(8)))
    load._opened_records.cache_clear()
    assert found == [("data", "a"), ("data", "b")] * 4 and maximum == [1, 1]
