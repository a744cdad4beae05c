"""Evaluation in plain PyTorch, image by image: a second witness of the numbers.

It reads a split as this library does, and imports nothing of it: an image is padded by reflection to multiples of
32 pixels, localized, classified by its foreground and by its background; the mask is cut back, resized to the true
one's size and compared. Needs the extra `[torch]`.

Source: arXiv 1907.12934, section 4.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import torch_net

_MULTIPLE = 32
# How far rounding may bring two summaries apart: percent, where pixels near the threshold change sides, and nats.
_PERCENT, _NATS = 0.05, 1e-3


@torch.inference_mode()
def evaluate(net: torch_net.MinMaxNet, split, *, threshold: float = 0.5) -> dict[str, float]:
    """Errors and F1 of a split in percent, entropies in nats; means over its images, each of which has a mask.

    Args:
        net: the network; it is put in evaluation mode.
        split: a `minmax_jax.data.dataset.Split`.
        threshold: a pixel is foreground where the mask is at least this.
    """
    net.eval()
    rows = [_evaluate_image(net, split, index, threshold) for index in range(len(split))]
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}


def _evaluate_image(net, split, index: int, threshold: float) -> dict[str, float]:
    pixels, label = split.read_image(index), int(split.labels[index])
    sides = [((-size % _MULTIPLE) // 2, -size % _MULTIPLE) for size in pixels.shape[:2]]
    padded = np.pad(pixels, [(before, both - before) for before, both in sides] + [(0, 0)], mode="reflect")
    images = torch_net.from_uint8(padded[None])
    found = net.localize(images, "image")
    foreground_logits, _ = net.classify(images * found.masks)
    background_logits, _ = net.classify(images * (1 - found.masks))
    (top, _), (left, _) = sides
    mask = found.masks[:, :, top : top + pixels.shape[0], left : left + pixels.shape[1]]
    return {
        "classification_error": 100 * (foreground_logits.argmax().item() != label),
        "localizer_classification_error": 100 * (found.logits.argmax().item() != label),
        "foreground_entropy": _entropy(foreground_logits),
        "background_entropy": _entropy(background_logits),
        **_compare(mask, torch.tensor(split.read_mask(index)), threshold),
    }


def _entropy(logits: torch.Tensor) -> float:
    return -(logits.softmax(1) * logits.log_softmax(1)).sum().item()


def _compare(mask: torch.Tensor, true: torch.Tensor, threshold: float) -> dict[str, float]:
    resized = F.interpolate(mask, true.shape, mode="bilinear", align_corners=False)[0, 0]
    predicted, everything = resized >= threshold, torch.ones_like(true)
    return {
        "f1_foreground": _dice(predicted, true),
        "f1_background": _dice(~predicted, ~true),
        "all_ones_f1_foreground": _dice(everything, true),
        "all_ones_f1_background": _dice(~everything, ~true),
    }


def _dice(predicted: torch.Tensor, true: torch.Tensor) -> float:
    """In percent; NaN where both are empty."""
    total = (predicted.sum() + true.sum()).item()
    return 200 * (predicted & true).sum().item() / total if total else float("nan")


def check_agreement(ours: dict, theirs: dict) -> None:
    """Compares this library's summary of a split with the peer's.

    Raises:
        RuntimeError: naming what differs by more than rounding.
    """
    baseline = ours["baselines"]["all_ones"]
    ours = ours | {f"all_ones_{name}": value for name, value in baseline.items()}
    for name, value in theirs.items():
        tolerance = _NATS if name.startswith("entropy") else _PERCENT
        if not math.isclose(ours[name], value, rel_tol=0, abs_tol=tolerance):
            raise RuntimeError(f"The sides disagree: {name} is {ours[name]} here and {value} in the peer.")
