"""Small splits held in memory."""

import numpy as np

from minmax_jax.data import dataset


class _Reader:
    def __init__(self, arrays):
        self.arrays = arrays

    def __call__(self, index):
        return self.arrays[index]


def refuse(index):
    raise AssertionError(f"mask {index} was read")


def make_split(sizes, *, num_classes=2, read_mask=None, mask_sizes=None):
    """Random images of the given (height, width), and masks that mark their left half."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    masks = [np.broadcast_to(np.arange(width) < width // 2, (height, width)) for height, width in mask_sizes or sizes]
    return dataset.Split(
        names=tuple(f"image_{index}" for index in range(len(sizes))),
        labels=np.arange(len(sizes), dtype=np.int32) % num_classes,
        class_names=tuple("abcdefgh"[:num_classes]),
        sizes=np.array(sizes),
        read_image=_Reader(images),
        read_mask=read_mask or _Reader(masks),
    )
