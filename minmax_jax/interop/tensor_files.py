"""Files of named tensors: NumPy archives, safetensors, and PyTorch checkpoints.

No file can run code: archives are read without pickles, checkpoints by `torch_files`.
"""

from collections.abc import Mapping
import hashlib
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from minmax_jax.base import disk
from minmax_jax.base.errors import UserError
from minmax_jax.interop import torch_files

_SUFFIXES = (".npz", ".safetensors", ".pt", ".pth", ".tar")
# torchvision ends a file's name with the first eight digits of its SHA-256.
_HASHED_NAME = re.compile(r"-([0-9a-f]{8})\.pth?$")
# Where checkpoints keep their tensors if not at the top.
_NESTED = ("state_dict", "model_state_dict", "model")
_PYTORCH_LAYOUT = {
    "convolution_kernels": "OIHW: output channels, input channels, height, width, as in PyTorch",
    "depthwise_kernels": "OIHW with one input channel: channels, 1, height, width",
    "dense_kernels": "output features, input features",
    "order": "C: the last index changes fastest",
}


class InteropError(UserError, ValueError):
    """A file or a state dict that cannot be used; the message names it, what is wrong, and what to do."""


def read_tensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a file by name; floating-point ones as float32.

    A state dict nested in a checkpoint is found; the prefix `module.` of DataParallel is removed.

    Args:
        path: `.npz`, `.safetensors`, or a PyTorch checkpoint (`.pt`, `.pth`, `.tar`).

    Raises:
        InteropError: if the file is missing, damaged or of another kind, if its SHA-256 is not that of its name, or if
            a tensor is not finite.

    Example:
        >>> import numpy as np
        >>> from minmax_jax.interop import tensor_files
        >>> np.savez("weights.npz", **{"module.conv1.weight": np.ones((8, 3, 7, 7))})
        >>> tensors = tensor_files.read_tensors("weights.npz")
        >>> {name: (tensor.shape, str(tensor.dtype)) for name, tensor in tensors.items()}
        {'conv1.weight': ((8, 3, 7, 7), 'float32')}
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InteropError(f"There is no file {str(path)!r}.")
    if path.suffix not in _SUFFIXES:
        raise InteropError(f"{path} must end with one of {_SUFFIXES}.")
    _check_hash(path)
    read = {".npz": _read_archive, ".safetensors": _read_safetensors}.get(path.suffix, _read_checkpoint)
    tensors = {name.removeprefix("module."): _to_float32(tensor) for name, tensor in read(path).items()}
    broken = [name for name, tensor in tensors.items() if tensor.dtype.kind == "f" and not np.isfinite(tensor).all()]
    if broken:
        raise InteropError(f"{path} has values that are infinite or not a number in: {', '.join(broken)}.")
    return tensors


def read_layout(path: str | pathlib.Path) -> dict[str, str]:
    """What is known of the layout of the tensors in a file, as text by name.

    PyTorch's for its checkpoints, what a safetensors file says of itself, and {} for others.
    """
    path = pathlib.Path(path)
    if path.suffix in (".pt", ".pth", ".tar"):
        return dict(_PYTORCH_LAYOUT)
    if path.suffix != ".safetensors":
        return {}
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def write_tensors(
    path: str | pathlib.Path, tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors to a safetensors file, under another name first: a killed program leaves no half of it.

    Args:
        path: of the file; one that exists is replaced.
        tensors: numbers of any shape, by name; written in C order.
        metadata: text that is kept in the file, by name, such as the layout of kernels.

    Raises:
        InteropError: naming tensors that are no numbers.
        OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    others = [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype.kind not in "biuf"]
    if others:
        raise InteropError(f"{path} cannot hold what is no number: {', '.join(others)}.")
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    content = safetensors_numpy.save(arrays, metadata=dict(metadata) if metadata else None)
    with disk.replacing(path) as replacement:
        replacement.write_bytes(content)


def _check_hash(path: pathlib.Path) -> None:
    named = _HASHED_NAME.search(path.name)
    if named is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(named[1]):
        raise InteropError(f"{path} has SHA-256 {digest}, its name says {named[1]}...: download it again.")


def _to_float32(tensor: np.ndarray) -> np.ndarray:
    # Of NumPy's kinds, bfloat16 is none.
    return tensor.astype(np.float32) if jnp.issubdtype(tensor.dtype, jnp.floating) else tensor


def _read_archive(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # of ZIP files, decompression and arrays
        raise InteropError(f"{path} is not a complete NumPy archive ({error}).") from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors_numpy.load_file(path)
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InteropError(f"{path} is not a complete safetensors file of numeric tensors ({error}).") from error


def _read_checkpoint(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        content = torch_files.read(path)
    except (OSError, torch_files.TorchFileError) as error:
        raise InteropError(f"{path} is not a complete PyTorch checkpoint of plain tensors ({error}).") from error
    tensors = _find_tensors(content)
    if not tensors:
        raise InteropError(f"{path} holds no state dict, neither at the top nor under one of {_NESTED}.")
    return tensors


def _find_tensors(content: Any) -> dict[str, np.ndarray]:
    """The state dict in what a checkpoint holds, or nothing."""
    if not isinstance(content, dict):
        return {}
    for key in _NESTED:
        if isinstance(content.get(key), dict):
            return _find_tensors(content[key])
    return {name: value for name, value in content.items() if isinstance(value, np.ndarray) and isinstance(name, str)}
