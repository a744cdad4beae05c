"""The method's two networks on an EfficientNet-Lite trunk in plain PyTorch, independent of `minmax_jax`.

The state dict has the names of the published ImageNet files. Padding is symmetric, as in `minmax_jax`.
"""

from collections.abc import Sequence

import torch
from torch import nn
import torch.nn.functional as F

from benchmarks import torch_net


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection, and the input where the shape allows it."""

    def __init__(self, window: int, stride: int, expansion: int, channels: int, outputs: int):
        super().__init__()
        wide = expansion * channels
        if expansion > 1:
            self._expand_conv, self._bn0 = nn.Conv2d(channels, wide, 1, bias=False), _norm(wide)
        self._depthwise_conv = nn.Conv2d(wide, wide, window, stride, window // 2, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = nn.Conv2d(wide, outputs, 1, bias=False), _norm(outputs)
        self.is_expanded, self.has_shortcut = expansion > 1, stride == 1 and channels == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.is_expanded else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.has_shortcut else y


class LiteNet(torch_net.MinMaxNet):
    """As `MinMaxNet`; `stages` are (repeats, window, stride, expansion, channels), output stride 32."""

    def __init__(self, num_classes: int, *, stages: Sequence[Sequence[int]], **options):
        self.lite_stages = stages
        super().__init__(num_classes, **options)

    def build_trunk(self, *residual) -> int:
        del residual
        self._conv_stem, self._bn0, channels = nn.Conv2d(3, 32, 3, 2, 1, bias=False), _norm(32), 32
        blocks = []
        for repeats, window, stride, expansion, outputs in self.lite_stages:
            for repeat in range(repeats):
                blocks.append(Block(window, stride if repeat == 0 else 1, expansion, channels, outputs))
                channels = outputs
        self._blocks = nn.Sequential(*blocks)
        return channels

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """The feature map [B, channels, h, w]."""
        return self._blocks(F.relu6(self._bn0(self._conv_stem(images)), inplace=True))
