"""Residual trunks: names of their tensors in the published layout (torchvision's), and sources of pretrained files.

timm's networks have the same names, but for deep stems: those of its `resnetNs` fit stem "deep", `resnetNd` is another
network. Files of torchvision and timm were trained on images less ImageNet's mean, over its deviation; here images are
in [-1, 1], about half as wide, which batch norm in training takes out again.
"""

from collections.abc import Sequence
import re

import numpy as np

from minmax_jax.interop.tensor_files import InteropError

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# Classifier layers that a trunk's file may hold as well; new heads replace them.
REPLACED = ("fc.",)
SOURCES = """Residual trunks trained on ImageNet:
  stem "deep", of the scene-parsing project, no published checksum:
    http://sceneparsing.csail.mit.edu/model/pretrained_resnet/NAME-imagenet.pth for resnet18, resnet50, resnet101
  stem "plain", of torchvision, whose file names end with the start of their SHA-256:
    https://download.pytorch.org/models/NAME.pth
    for resnet18-f37072fd, resnet34-b627a593, resnet50-0676ba61, resnet101-63fe2227
  or the safetensors of timm: resnet18, resnet34, resnet50, resnet101 (stem "plain"), resnet50s, resnet101s ("deep")"""
# Layers of timm's deep stem, in a sequence with the activations between them.
_DEEP_STEM = {"conv1.0": "conv1", "conv1.1": "bn1", "conv1.3": "conv2", "conv1.4": "bn2", "conv1.6": "conv3"}


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
    """The tensors with torchvision's names, if they have timm's.

    Raises:
        InteropError: for a ResNet-D, whose shortcuts average their input before they convolve it.
    """
    averaging = [name for name, x in tensors.items() if name.endswith("downsample.1.weight") and x.ndim == 4]
    if averaging:
        raise InteropError(
            f"{averaging[0]} is a convolution: this is a ResNet-D of timm's, whose shortcuts average before they"
            " convolve. Trunks here do not; give the file of a ResNet without d."
        )
    if "conv1.0.weight" not in tensors:
        return tensors
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        renamed[f"{(_DEEP_STEM | {'bn1': 'bn3'}).get(layer, layer)}.{leaf}"] = tensor
    return renamed
