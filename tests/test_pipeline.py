"""Batches: no masks, the same for any number of workers, resumable, shared by hosts; padding for evaluation."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from minmax_jax.data import padding, pipeline, transforms
from tests import programs, splits

AUGMENTATION = transforms.Augmentation((32, 32), padding=0.5, contrast=0.4)


def _batches(split=None, count=7, batch_size=4, **options):
    options = {"seed": 1, "augmentation": AUGMENTATION} | options
    split = split or splits.make_split([(40, 48)] * 10, read_mask=splits.refuse)
    iterator = pipeline.train_batches(split, batch_size=batch_size, **options)
    return [next(iterator) for _ in range(count)]


def _assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for name in ("images", "labels"):
            np.testing.assert_array_equal(batch[name], other[name])


def _imbalanced(counts=(9, 1, 2)):
    """Images whose first pixel's green is their number."""
    split = splits.make_split([(32, 32)] * sum(counts), num_classes=len(counts) + 1, read_mask=splits.refuse)
    for index, image in enumerate(split.read_image.arrays):
        image[:] = index
    return dataclasses.replace(split, labels=np.repeat(np.arange(len(counts), dtype=np.int32), counts))


def _drawn(count, **options):
    """(labels, numbers) of the images in the order of the training."""
    options = {"augmentation": transforms.Augmentation((32, 32)), "balanced": True} | options
    batches = _batches(_imbalanced(), count=count, **options)
    return (np.concatenate([batch[name].reshape(4, -1)[:, 0] for batch in batches]) for name in ("labels", "images"))


def test_balanced_batches_draw_all_classes_equally_often():
    """Of 12 images an epoch each class is drawn 4 times; the class without an image is left out."""
    labels, numbers = _drawn(27)
    for start in range(0, 108, 12):
        assert np.bincount(labels[start : start + 12]).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(labels, np.array([0] * 9 + [1] + [2] * 2)[numbers])
    # Class 0 has had 36 draws of 9 images, each 4 times, class 2 each of its two 18 times.
    assert np.bincount(numbers).tolist() == [4] * 9 + [36, 18, 18]
    assert len({tuple(labels[start : start + 12]) for start in range(0, 108, 12)}) > 5  # the order is random
    other, _ = _drawn(27, seed=2)
    assert not np.array_equal(labels, other)
    plain, _ = _drawn(27, balanced=False)
    assert np.bincount(plain).tolist() == [81, 9, 18]


def test_balanced_batches_resume_and_are_shared_by_hosts():
    options = {"split": _imbalanced(), "balanced": True}
    all_batches = _batches(**options)
    _assert_equal(_batches(**options, first_batch=3, count=4), all_batches[3:])
    shares = [_batches(**options, process_index=index, process_count=2) for index in range(2)]
    for batch, *parts in zip(all_batches, *shares):
        for name in ("images", "labels"):
            np.testing.assert_array_equal(batch[name], np.concatenate([part[name] for part in parts]))


@pytest.mark.slow
def test_balanced_batches_do_not_depend_on_the_workers():
    _assert_equal(_batches(_imbalanced(), balanced=True, num_workers=2), _batches(_imbalanced(), balanced=True))


def test_no_mask_can_get_into_a_training_batch():
    """The split's masks refuse to be read, and a batch has two entries."""
    for batch in _batches():
        assert set(batch) == {"images", "labels"}
        assert batch["images"].shape == (4, 32, 32, 3) and batch["images"].dtype == np.uint8
        assert batch["labels"].shape == (4,)


@pytest.mark.parametrize("options", [dict(num_workers=2), dict(num_threads=1), dict(num_threads=5)])
def test_batches_do_not_depend_on_workers(options):
    _assert_equal(_batches(**options), _batches())


def test_each_image_comes_once_before_any_comes_again():
    plain = transforms.Augmentation((32, 32), flip_horizontal=False)
    split = splits.make_split([(32, 32)] * 10)
    known = {split.read_image(index).tobytes(): index for index in range(10)}
    batches = _batches(split, count=6, batch_size=5, augmentation=plain)
    order = [known[image.tobytes()] for batch in batches for image in batch["images"]]
    labels = [label for batch in batches for label in batch["labels"]]
    epochs = [order[0:10], order[10:20], order[20:30]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert labels == [index % 2 for index in order]


def test_each_epoch_is_augmented_anew():
    split = splits.make_split([(40, 48)])
    batches = _batches(split, count=5, batch_size=1)
    assert len({batch["images"].tobytes() for batch in batches}) == 5


def test_seeds_differ():
    assert not np.array_equal(_batches(seed=1)[0]["images"], _batches(seed=2)[0]["images"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_exactly_resumable(num_workers):
    split = splits.make_split([(40, 48)] * 10)
    options = dict(batch_size=4, seed=1, augmentation=AUGMENTATION, num_workers=num_workers)
    iterator = pipeline.train_batches(split, **options)
    for _ in range(3):
        next(iterator)
    expected = [next(iterator) for _ in range(4)]
    resumed = pipeline.train_batches(split, first_batch=3, **options)
    _assert_equal([next(resumed) for _ in range(4)], expected)


class _TellingPlatform:
    """Images that are white where JAX and the processes that this one starts use no device but CPUs, else black."""

    def __call__(self, index):
        is_cpu = os.environ.get("JAX_PLATFORMS") == jax.config.jax_platforms == "cpu"
        return np.full((32, 32, 3), 255 * is_cpu, np.uint8)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_reading_processes_leave_accelerators_alone(num_workers, monkeypatch):
    """And the process that trains is left as it is."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    before = jax.config.jax_platforms
    split = dataclasses.replace(splits.make_split([(32, 32)] * 8), read_image=_TellingPlatform())
    batches = _batches(split, num_workers=num_workers, augmentation=transforms.Augmentation((32, 32)))
    assert {batch["images"].mean() for batch in batches} == {255.0 if num_workers else 0.0}
    assert "JAX_PLATFORMS" not in os.environ and jax.config.jax_platforms == before != "cpu"


_READS_FOR_EVER = """
import pathlib, sys
from minmax_jax.data import pipeline, transforms
from tests import splits

split = splits.make_split([(40, 48)] * 10)
batches = pipeline.train_batches(
    split, batch_size=4, seed=1, augmentation=transforms.Augmentation((32, 32)), num_workers=2
)
next(batches)
pids = pathlib.Path("/proc/self/task").glob("*/children")
print(*[pid for path in pids for pid in path.read_text().split()], flush=True)
sys.stdin.read()
"""


def _is_running(pid: str) -> bool:
    try:
        return pathlib.Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="lists the processes of Linux")
def test_reading_processes_end_with_a_training_that_is_killed():
    """Two of them, and the one that counts what they share."""
    command = [sys.executable, "-c", _READS_FOR_EVER]
    training = subprocess.Popen(
        command, cwd=programs.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with training:
        pids = training.stdout.readline().split()
        assert len(pids) == 3 and all(map(_is_running, pids))
        training.kill()
    deadline = time.monotonic() + 20
    while any(map(_is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [int(pid) for pid in pids if _is_running(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def test_hosts_share_the_same_global_batches():
    whole = _batches()
    shares = [_batches(process_index=index, process_count=2) for index in range(2)]
    for batch, *parts in zip(whole, *shares):
        for name in ("images", "labels"):
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), batch[name])


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="batch_size=4 must be a multiple of the 3 processes"):
        _batches(process_count=3)


def test_evaluation_groups_by_padded_shape():
    split = splits.make_split([(40, 50), (64, 64), (64, 40), (33, 64), (65, 32), (64, 34)])
    batches = list(pipeline.evaluation_batches(split, batch_size=2))
    assert sorted(index for batch in batches for index in batch.indices) == list(range(6))
    shapes = [batch.images.shape for batch in batches]
    assert shapes == [(2, 64, 64, 3)] * 3 + [(2, 96, 32, 3)]
    assert [len(batch.indices) for batch in batches] == [2, 2, 1, 1]


def test_evaluation_pads_by_reflection_the_odd_pixel_last_and_crops_back():
    split = splits.make_split([(61, 50)])
    (batch,) = pipeline.evaluation_batches(split, batch_size=1)
    image = split.read_image(0)
    np.testing.assert_array_equal(batch.images[0], np.pad(image, ((1, 2), (7, 7), (0, 0)), mode="reflect"))
    np.testing.assert_array_equal(padding.crop_back(batch.images[0, :, :, 0], (61, 50)), image[:, :, 0])
