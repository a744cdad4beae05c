"""Files of `torch.save`, read without PyTorch and without running anything that a file asks for.

Both formats: pickles one after another, then the raw storages (before PyTorch 1.6), and a ZIP file with one pickle and
a file for each storage. The pickles may build dicts, lists, numbers, strings and tensors. Any other instruction or name
in them is refused, by its name, before the first one is carried out.
"""

from collections.abc import Callable
import io
import math
import os
import pathlib
import pickle
from typing import Any, BinaryIO, NamedTuple
import zipfile

import numpy as np

from minmax_jax.interop import pickle_checks

_OPEN = object()  # what is being resolved
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_BFLOAT16 = "bfloat16"  # which NumPy does not have
_DTYPES = {
    **{"Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": _BFLOAT16, "Bool": np.bool_},
    **{"Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8},
}


# What a file may grow to: storages are not compressed by torch.save, and few tensors share one.
_MAX_INFLATION, _MAX_SHARES = 8, 8


class TorchFileError(ValueError):
    """A file that is damaged, or asks for something else than tensors."""


# Tuples: a pickle can change the attributes of any other object that it made or named, of frozen dataclasses as well.


class _Storage(NamedTuple):
    key: str
    dtype: Any
    size: int


class _Tensor(NamedTuple):
    """A view of a storage that is not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Function(NamedTuple):
    """A callable in place of a global that the file names."""

    call: Callable

    def __call__(self, *arguments):
        return self.call(*arguments)


class _Dict(dict):
    """In place of an OrderedDict; the attributes that a file gives it are dropped."""

    def __setstate__(self, state) -> None:
        del state


def _make_dict(items=()) -> _Dict:
    result = _Dict()
    for key, value in items:
        if not isinstance(key, str | int | float | None):
            raise TorchFileError("it has a key that is neither a number nor text")
        result[key] = value
    return result


def _rebuild_tensor(storage, offset, shape, strides, *others) -> _Tensor:
    del others  # requires_grad and hooks
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_GLOBALS = {
    ("collections", "OrderedDict"): _Function(_make_dict),
    ("torch._utils", "_rebuild_tensor"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(lambda tensor, *others: tensor),
    ("torch", "Size"): _Function(tuple),
    **{("torch", f"{name}Storage"): dtype for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _GLOBALS[module, name]

    def persistent_load(self, identifier) -> _Storage:
        kind, dtype, key, _, size, *view = identifier
        is_known = any(dtype is known for known in _DTYPES.values()) and isinstance(key, str | int)
        if kind != "storage" or not is_known or not isinstance(size, int) or (view and view[0] is not None):
            raise TorchFileError("it refers to what is no plain storage")
        return _Storage(str(key), dtype, size)


def read(path: pathlib.Path) -> Any:
    """What was saved, with NumPy arrays for tensors and lists for tuples; bfloat16 becomes float32.

    Raises:
        TorchFileError: for a file that is damaged, is of another kind, or holds anything but plain data and tensors.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        try:
            content, storages = _read_zip(file) if zipfile.is_zipfile(file) else _read_old(file)
            return _resolve(content, _Arrays(storages), {})
        except (TorchFileError, OSError):
            raise
        except pickle_checks.PickleError as error:
            raise TorchFileError(str(error)) from error
        except Exception as error:  # a damaged pickle fails in nearly any way
            raise TorchFileError(f"it is damaged: {type(error).__name__}: {error}") from error


def _unpickle(file: BinaryIO) -> Any:
    """The next pickle of a file, checked before it is carried out."""
    start = file.tell()
    pickle_checks.check(file, _GLOBALS)
    size = file.tell() - start
    file.seek(start)
    return _Unpickler(io.BytesIO(file.read(size)), encoding="utf-8").load()


def _read_old(file: BinaryIO):
    file.seek(0)
    if _unpickle(file) != _MAGIC or _unpickle(file) != _PROTOCOL:
        raise TorchFileError("it is no file of torch.save")
    if not _unpickle(file)["little_endian"]:
        raise TorchFileError("it was written by a big-endian machine")
    content, keys = _unpickle(file), _unpickle(file)
    storages, sizes = {}, {storage.key: storage for storage in _storages(content)}
    for key in keys:
        (count,) = np.frombuffer(file.read(8), "<i8")
        storage = sizes[str(key) if isinstance(key, str | int) else ""]
        if count != storage.size:
            raise TorchFileError(f"storage {storage.key} has {count} numbers instead of {storage.size}")
        left = os.fstat(file.fileno()).st_size - file.tell()
        if not 0 <= _num_bytes(storage) <= left:
            raise TorchFileError(f"storage {storage.key} of {_num_bytes(storage)} bytes is longer than the file")
        storages[storage.key] = file.read(_num_bytes(storage))
    return content, storages


def _read_zip(file: BinaryIO):
    archive = zipfile.ZipFile(file)
    (name,) = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    prefix = name.removesuffix("data.pkl")
    left = _MAX_INFLATION * os.fstat(file.fileno()).st_size

    def read_member(name: str) -> bytes:
        nonlocal left
        left -= archive.getinfo(name).file_size
        if left < 0:
            raise TorchFileError(f"it holds more than {_MAX_INFLATION} times its size, compressed: {name} is refused")
        return archive.read(name)

    if f"{prefix}byteorder" in archive.namelist() and read_member(f"{prefix}byteorder") != b"little":
        raise TorchFileError("it was written by a big-endian machine")
    content = _unpickle(io.BytesIO(read_member(name)))
    storages = {}
    for storage in _storages(content):
        _check_size(storage, archive.getinfo(f"{prefix}data/{storage.key}").file_size)
        storages[storage.key] = read_member(f"{prefix}data/{storage.key}")
    return content, storages


def _storages(content: Any) -> set[_Storage]:
    """All storages that tensors of the content refer to."""
    found, seen, left = set(), set(), [content]
    while left:
        value = left.pop()
        if id(value) in seen:  # one object in many places
            continue
        seen.add(id(value))
        if isinstance(value, _Tensor):
            found.add(value.storage)
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
    return found


def _item_size(dtype: Any) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _num_bytes(storage: _Storage) -> int:
    return storage.size * _item_size(storage.dtype)


def _check_size(storage: _Storage, num_bytes: int) -> None:
    if num_bytes != _num_bytes(storage):
        raise TorchFileError(f"storage {storage.key} has {num_bytes} bytes instead of {storage.size} numbers")


class _Arrays:
    """The tensors of a file as arrays; storages are read once."""

    def __init__(self, storages: dict[str, bytes]):
        self._storages, self._arrays = storages, {}
        self._left = _MAX_SHARES * sum(map(len, storages.values()))

    def view(self, tensor: _Tensor) -> np.ndarray:
        storage = tensor.storage
        if storage not in self._arrays:
            self._arrays[storage] = _to_array(self._storages[storage.key], storage)
        view = _view(self._arrays[storage], tensor)
        self._left -= view.size * _item_size(storage.dtype)
        if self._left < 0:
            raise TorchFileError(f"its tensors show more than {_MAX_SHARES} times the numbers that it holds")
        return view


def _resolve(content: Any, arrays: _Arrays, known: dict[int, Any]) -> Any:
    """The content with arrays; what is in several places is resolved once."""
    if not isinstance(content, _Tensor | dict | list | tuple):
        return content
    if id(content) not in known:
        known[id(content)] = _OPEN
        if isinstance(content, _Tensor):
            result = arrays.view(content)
        elif isinstance(content, dict):
            result = {name: _resolve(value, arrays, known) for name, value in content.items()}
        else:
            result = [_resolve(value, arrays, known) for value in content]
        known[id(content)] = result
    if known[id(content)] is _OPEN:
        raise TorchFileError("it has a list or a dict that holds itself")
    return known[id(content)]


def _to_array(content: bytes, storage: _Storage) -> np.ndarray:
    _check_size(storage, len(content))
    if storage.dtype == _BFLOAT16:
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, np.dtype(storage.dtype).newbyteorder("<"))


def _view(array: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """A copy of the part of a storage that a tensor shows."""
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    is_inside = min((offset, *shape, *strides)) >= 0 and (0 in shape or last < len(array))
    if not is_inside or math.prod(shape) > len(array):
        raise TorchFileError(f"a tensor of shape {shape} reaches beyond its storage of {len(array)} numbers")
    if 0 in shape:
        return np.zeros(shape, array.dtype)
    steps = [stride * array.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(array[offset:], shape, steps, writeable=False).copy()
