"""Weights of other implementations: PyTorch state dicts, in and out."""

from minmax_jax.interop import efficientnet_lite, resnet, vit
from minmax_jax.interop.state_dicts import InteropError, Published, from_published, load_trunk, to_published
from minmax_jax.interop.tensor_files import read_layout, read_tensors, write_tensors

__all__ = [
    "InteropError",
    "Published",
    "efficientnet_lite",
    "from_published",
    "load_trunk",
    "read_layout",
    "read_tensors",
    "resnet",
    "to_published",
    "vit",
    "write_tensors",
]
