"""Residual trunks: names of their tensors in the published layout (torchvision's), and sources of pretrained files."""

from collections.abc import Sequence
import re

import numpy as np

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# Classifier layers that a trunk's file may hold as well; new heads replace them.
REPLACED = ("fc.",)
SOURCES = """Residual trunks trained on ImageNet:
  stem "deep", of the scene-parsing project, no published checksum:
    http://sceneparsing.csail.mit.edu/model/pretrained_resnet/NAME-imagenet.pth for resnet18, resnet50, resnet101
  stem "plain", of torchvision, whose file names end with the start of their SHA-256:
    https://download.pytorch.org/models/NAME.pth
    for resnet18-f37072fd, resnet34-b627a593, resnet50-0676ba61, resnet101-63fe2227"""


def tensor_name(modules: Sequence[str], leaf: str) -> str | None:
    """Name of a variable of `models.resnet.ResNet`, or None if the layout has none.

    Args:
        modules: names of the modules below the trunk.
        leaf: name of the variable.
    """
    leaf = LEAVES.get(leaf)
    path = "/".join(modules).replace("norm", "bn")
    if stem := re.fullmatch(r"stem_(conv\d|bn\d)", path):
        return f"{stem[1]}.{leaf}"
    if block := re.fullmatch(r"stage(\d+)_block(\d+)/(\w+)", path):
        layer = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(block[3], block[3])
        return f"layer{block[1]}.{int(block[2]) - 1}.{layer}.{leaf}"
    return None


def in_own_layout(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors as they are: this layout has one set of names."""
    return tensors
