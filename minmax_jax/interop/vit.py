"""Vision Transformer trunks: names of their tensors in the files of DINOv2 and of timm, and sources of the files."""

from collections.abc import Sequence
import math
import re

import numpy as np

from minmax_jax.models import trunks

# Tokens of training, and timm's classes.
REPLACED = ("mask_token", "head.")
SOURCES = """Vision Transformers of DINOv2 (Apache-2.0), no published checksum:
  https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth for vit_small14
  https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth for vit_small14_reg4
  or the safetensors of timm/vit_small_patch14_dinov2.lvd142m and timm/vit_small_patch14_reg4_dinov2.lvd142m"""
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_TOKENS = {"class_token": "cls_token", "position_embedding": "pos_embed", "register_tokens": "register_tokens"}
_OTHERS = {"patch_embedding": "patch_embed.proj", "norm": "norm"}
_LAYERS = {"qkv": "attn.qkv", "projection": "attn.proj", "mlp1": "mlp.fc1", "mlp2": "mlp.fc2"}
_LAYERS |= {"norm1": "norm1", "norm2": "norm2"}
_SCALES = {"scale1": "ls1.gamma", "scale2": "ls2.gamma"}


def tensor_name(modules: Sequence[str], leaf: str) -> str | None:
    """Name of a variable of `models.vit.VisionTransformer` in DINOv2's files, or None if the layout has none.

    Args:
        modules: names of the modules below the trunk.
        leaf: name of the variable.
    """
    path = "/".join((*modules, leaf)).removeprefix(f"{trunks.FROZEN}/")
    if path in _TOKENS:
        return _TOKENS[path]
    if block := re.fullmatch(r"block(\d+)/(scale\d)", path):
        return f"blocks.{block[1]}.{_SCALES[block[2]]}"
    leaf = _LEAVES.get(leaf)
    if block := re.fullmatch(r"block(\d+)/(\w+)/\w+", path):
        return f"blocks.{block[1]}.{_LAYERS[block[2]]}.{leaf}" if block[2] in _LAYERS else None
    layer = path.rpartition("/")[0]
    return f"{_OTHERS[layer]}.{leaf}" if layer in _OTHERS else None


def in_own_layout(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with DINOv2's names, if they have timm's.

    timm calls the registers `reg_token`; with them, it has added the class token's position to the token itself.
    """
    tensors = {{"reg_token": "register_tokens"}.get(name, name): tensor for name, tensor in tensors.items()}
    positions = tensors.get("pos_embed")
    if positions is not None and positions.ndim == 3 and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        tensors["pos_embed"] = np.concatenate([np.zeros_like(positions[:, :1]), positions], axis=1)
    return tensors
