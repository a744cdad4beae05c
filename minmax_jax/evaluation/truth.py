"""The annotation of one image, with what several metrics compute from it."""

import dataclasses
import functools

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset
from minmax_jax.evaluation import objects as objects_lib


@dataclasses.dataclass(frozen=True)
class Truth:
    """The annotation of one image.

    Attributes:
        label: its class.
        mask: [H', W'] bool foreground at the annotation's own resolution, or None where there is none.
        boxes: [K, 4] bounding boxes (top, left, bottom, right) as shares of height and width; K = 0: unknown.
        ignored: [H', W'] bool, pixels that no metric may count, or None.
        instances: [H', W'] int32, the number of each pixel's object from 1, 0 outside of the mask, or None
            without instance annotations.
        has_region: whether the class has one; where it has none, nothing else is known of the foreground.

    Example:
        >>> import numpy as np
        >>> from minmax_jax import evaluation
        >>> truth = evaluation.Truth(label=2, mask=np.ones((4, 4), bool), boxes=np.float32([[0.25, 0.25, 0.75, 0.75]]))
        >>> truth.mask.shape, truth.instances
        ((4, 4), None)
    """

    label: int
    mask: np.ndarray | None
    boxes: np.ndarray
    ignored: np.ndarray | None = None
    instances: np.ndarray | None = None
    has_region: bool = True

    @functools.cached_property
    def objects(self) -> objects_lib.Objects:
        """The objects of `instances`."""
        return objects_lib.renumber(self.instances)

    @functools.cached_property
    def outline(self) -> objects_lib.Outline:
        """The outline of the mask."""
        return objects_lib.outline(self.mask)

    def __post_init__(self):
        for name in ("mask", "ignored"):
            values = getattr(self, name)
            if values is not None and values.dtype != bool:  # of whole numbers, ~ is no complement
                raise OptionError(f"{name} has numbers of type {values.dtype}; give bool, such as mask > 0.")


def read_truth(split: dataset.Split, index: int) -> Truth:
    """The annotation of an image of a split."""
    if not split.has_region[index]:  # a mask could only be empty
        return Truth(
            label=int(split.labels[index]),
            mask=None,
            boxes=np.zeros((0, 4), np.float32),
            ignored=split.read_ignored(index),
            has_region=False,
        )
    return Truth(
        label=int(split.labels[index]),
        mask=split.read_mask(index),
        boxes=split.read_boxes(index),
        ignored=split.read_ignored(index),
        instances=split.read_instances(index),
    )
