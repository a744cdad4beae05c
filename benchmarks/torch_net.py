"""The method's two networks in plain PyTorch, independent of `minmax_jax`.

The state dict has the names, shapes and order of the published implementation's. Images are [B, 3, H, W] in [-1, 1],
kernels OIHW. `.double()`, `.cuda()` and `.to(memory_format=torch.channels_last)` are left to the caller, and so is
`torch.compile`: `net.localize = torch.compile(net.localize)`, and `classify` alike.

Source: arXiv 1907.12934, section 3.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first of which strides, and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(channels, 4 * width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True)


def from_uint8(images: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Images [B, H, W, 3] in [0, 255] as the network reads them: [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype, memory_format=torch.contiguous_format) / 127.5 - 1


def shortcut(channels: int, features: int, stride: int) -> nn.Module:
    """A strided 1x1 convolution where the shape changes; elsewhere nothing, and no entry in the state dict."""
    if stride == 1 and channels == features:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, features, 1, stride, bias=False), nn.BatchNorm2d(features))


class Head(nn.Module):
    """1x1 convolution to C*M maps, mean over the M modalities, WILDCAT pooling of each class map to a logit."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        modalities: int,
        *,
        k_max: float,
        k_min: float,
        alpha: float,
        dropout: float,
    ):
        super().__init__()
        self.to_modalities = nn.Conv2d(channels, num_classes * modalities, 1)
        self.modalities, self.dropout = modalities, dropout
        self.k_max, self.k_min, self.alpha = k_max, k_min, alpha

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [B, C] and class maps [B, C, h, w] of a feature map."""
        maps = self.to_modalities(features).unflatten(1, (-1, self.modalities)).mean(2)
        return self.pool(maps.flatten(2)), maps

    def pool(self, values: torch.Tensor) -> torch.Tensor:
        n = values.shape[-1]
        scores = self.drop(values.topk(count(self.k_max, n)).values).mean(-1)
        if not (self.alpha and self.k_min):
            return scores
        lowest = self.drop(values.topk(count(self.k_min, n), largest=False).values).mean(-1)
        return (scores + self.alpha * lowest) / 2

    def drop(self, values: torch.Tensor) -> torch.Tensor:
        return F.dropout(values, self.dropout, self.training)


def count(k: float, n: int) -> int:
    """k of n values, where k is a share below 1 or a number; never fewer than one, nor more than all."""
    return min(max(round(k * n) if k < 1 else int(k), 1), n)


@dataclasses.dataclass
class Localization:
    """Logits [B, C], class maps [B, C, h, w] and masks [B, 1, H, W], the masks without a gradient."""

    logits: torch.Tensor
    maps: torch.Tensor
    masks: torch.Tensor


class MinMaxNet(nn.Module):
    """A localizer and a classifier on one residual trunk with a deep stem.

    Args:
        num_classes: C.
        block: `BasicBlock` or `Bottleneck`.
        stage_sizes: blocks in each stage.
        stage_strides: stride of each stage, after the stem's 4.
        width: channels of the first stage; each later one has twice those of the one before.
        modalities: M.
        k_max: share or number of the highest values of a class map that make its logit.
        k_min: share or number of the lowest values, used where `alpha` is not 0.
        alpha: weight of the lowest values.
        dropout: share of the pooled values that training drops.
        sigma: threshold of the mask on the normalised map.
        omega: steepness of the mask there.
        classifier_scale: size of what the classifier reads, as a share of the image's.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        block: type = BasicBlock,
        stage_sizes: Sequence[int] = (2, 2, 2, 2),
        stage_strides: Sequence[int] = (1, 2, 2, 2),
        width: int = 64,
        modalities: int = 5,
        k_max: float = 0.09,
        k_min: float = 0.09,
        alpha: float = 0.0,
        dropout: float = 0.0,
        sigma: float = 0.5,
        omega: float = 8.0,
        classifier_scale: float = 0.5,
    ):
        super().__init__()
        self.register_buffer("sigma", torch.tensor([sigma]))
        self.register_buffer("w", torch.tensor([float(omega)]))
        self.classifier_scale = classifier_scale
        channels = self.build_trunk(block, stage_sizes, stage_strides, width)
        pooling = {"k_max": k_max, "k_min": k_min, "alpha": alpha, "dropout": dropout}
        self.headseg = Head(channels, num_classes, modalities, **pooling)
        self.cl32 = Head(channels, num_classes, modalities, **pooling)

    def build_trunk(self, block: type, stage_sizes: Sequence[int], stage_strides: Sequence[int], width: int) -> int:
        """Adds the layers of the trunk; returns the channels of its feature map."""
        self.conv1 = nn.Conv2d(3, width, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.stages, channels = [], 2 * width
        for stage, (size, stride) in enumerate(zip(stage_sizes, stage_strides, strict=True)):
            blocks = []
            for index in range(size):
                blocks.append(block(channels, width * 2**stage, stride if index == 0 else 1))
                channels = width * 2**stage * block.expansion
            self.stages.append(f"layer{stage + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        return channels

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """The feature map [B, channels, h, w]."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, padding=1)
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return x

    def localize(self, images: torch.Tensor, normalization: str = "batch") -> Localization:
        """What the localizer makes of images; a map's extremes are taken over the "batch" or over its "image"."""
        logits, maps = self.headseg(self.trunk(images))
        with torch.no_grad():  # the classifier must not teach the localizer's head through its mask
            raw = (logits.softmax(1)[:, :, None, None] * maps).sum(1, keepdim=True)
            raw = F.interpolate(raw, images.shape[2:], mode="bilinear", align_corners=True)
            axes = {"batch": (0, 1, 2, 3), "image": (1, 2, 3)}[normalization]
            low, high = raw.amin(axes, keepdim=True), raw.amax(axes, keepdim=True)
            spread = (high - low).clamp_min(torch.finfo(raw.dtype).tiny)
            masks = torch.sigmoid(self.w * ((raw - low) / spread - self.sigma))
        return Localization(logits, maps, masks)

    def classify(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [B, C] and class maps of masked images, which the classifier reads at its own size."""
        size = [int(side * self.classifier_scale) for side in images.shape[2:]]
        return self.cl32(self.trunk(F.interpolate(images, size, mode="bilinear", align_corners=True)))
