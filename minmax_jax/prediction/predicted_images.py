"""What is known of an image file after its prediction."""

import dataclasses

import numpy as np

from minmax_jax.evaluation.image_predictions import ImagePrediction
from minmax_jax.prediction.inputs import Input
from minmax_jax.prediction.large.disk_arrays import DiskArray
from minmax_jax.prediction.sources import Source


@dataclasses.dataclass(frozen=True)
class Predicted:
    """An image file and its prediction.

    Attributes:
        source: the file.
        image: [H', W', 3] uint8, upright: the image, or of a large one a reduced copy.
        prediction: with the mask at the size of `image`.
        mask: [h, w] soft mask: the prediction's, or of a large image, at the size at which the networks saw it.
        num_tiles: in which it was predicted.
    """

    source: Source
    image: np.ndarray
    prediction: ImagePrediction
    mask: np.ndarray | DiskArray
    num_tiles: int = 1

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the image in one of the mask, down and across."""
        return self.source.size[0] / self.mask.shape[0], self.source.size[1] / self.mask.shape[1]


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An image file that cannot be predicted.

    Attributes:
        input: the file.
        reason: for people.
    """

    input: Input
    reason: str
