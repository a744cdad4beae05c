"""Faithfulness against torchcam, an independent implementation."""

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
metrics = pytest.importorskip("torchcam.metrics")
pytestmark = pytest.mark.witness

from minmax_jax.evaluation import faithfulness  # noqa: E402

_SIZE = (24, 32)


class _Given:
    """What torchcam asks of a class activation map, for a mask that is there already."""

    def __init__(self, model, mask):
        self.model, self._mask = model, torch.tensor(mask, dtype=torch.float32)[None]

    def __call__(self, class_idx, scores, **options):
        return [self._mask]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return contextlib.nullcontext()


def _case(seed):
    """A classifier, an image, its mean colour and a mask of distinct values."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    image = rng.integers(0, 256, (*_SIZE, 3), dtype=np.uint8)
    mean = np.round(image.mean(axis=(0, 1))).astype(np.uint8)
    return model, image, mean, rng.permutation(np.linspace(0, 1, image[..., 0].size)).reshape(_SIZE)


def _tensor(images, mean):
    """[B, 3, H, W], 0 being the mean colour: where torchcam multiplies by 0, it sees the mean as well."""
    return torch.tensor((images.astype(np.float32) - mean) / 64).permute(0, 3, 1, 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numbers_are_those_of_torchcam(seed):
    model, image, mean, mask = _case(seed)

    def probabilities(images):
        with torch.no_grad():
            return torch.softmax(model(_tensor(images, mean)), -1).numpy()

    ours = faithfulness.score(probabilities, image, mask, num_steps=12)["mask"]
    options = dict(cam_extractor=_Given(model, mask), logits_fn=lambda logits: torch.softmax(logits, -1))
    curves, drop = metrics.DeletionInsertionMetric(**options, steps=12), metrics.ClassificationMetric(**options)
    for metric in (curves, drop):
        metric.update(_tensor(image[None], mean))
    theirs = curves.summary() | drop.summary()
    for name in ("deletion", "insertion"):
        (value,) = [value for key, value in theirs.items() if key.startswith(name)]
        assert ours[f"{name}_mean"] == pytest.approx(value, abs=2e-5)
    # Our masked image is rounded to whole grey values.
    assert ours["average_drop"] == pytest.approx(theirs["avg_drop"], abs=2e-3)
    assert ours["increase"] == theirs["conf_increase"]
