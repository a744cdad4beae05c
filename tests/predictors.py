"""Predictors whose answers can be computed by hand."""

from collections.abc import Iterator
import contextlib
import itertools

import numpy as np
import pytest

from minmax_jax.data import padding, preprocessing
from minmax_jax.method import Prediction
from minmax_jax.minmax import method as minmax
from minmax_jax.ops import canvas
from minmax_jax.prediction.outputs import image_outputs


class BrightPixels:
    """Green is the mask, the class is whether the middle of the image is red; counts what is predicted.

    Attributes:
        shapes: of the batches.
    """

    class_names = ("plain", "red")
    background_classes = ()
    scores = minmax.SCORES
    calibrate_fn = None
    reads_canvases = True

    def __init__(self, *, crop_size=(64, 64), microns_per_pixel=0.0, **prepare):
        self.card = {"crop_size": list(crop_size), "microns_per_pixel": microns_per_pixel}
        self.preprocessing = preprocessing.Preprocessing(**prepare)
        self.shapes = []

    def predict(self, images):
        images, sizes = canvas.split(images)
        self.shapes.append(images.shape)
        middles = np.tile(images.shape[1:3], (len(images), 1)) // 2 if sizes is None else sizes // 2
        red = (images[np.arange(len(images)), middles[:, 0], middles[:, 1], 0] > 200).astype(int)
        probabilities = np.eye(2)[red] * 0.8 + 0.1
        entropy = np.full(len(images), 0.1)
        scores = {"foreground_entropy": entropy, "background_entropy": entropy + 0.5, "localizer_class": red}
        return Prediction(probabilities, images[..., 1:2] / 255.0, scores)

    def finish_mask(self, mask, prepared_size, size):
        assert prepared_size == size
        return padding.crop_back(mask, size).astype(np.float32)


@contextlib.contextmanager
def stopped_after(monkeypatch, num_images: int) -> Iterator[list[dict]]:
    """Interrupts the prediction inside when it is to write another image; gives the rows of those that it wrote."""
    write, written, numbers = image_outputs.write, [], itertools.count()  # threads write at the same time

    def stop(*arguments, **named):
        if next(numbers) >= num_images:
            raise KeyboardInterrupt
        written.append(write(*arguments, **named))
        return written[-1]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(image_outputs, "write", stop)
        yield written
