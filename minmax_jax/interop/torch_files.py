"""Files of `torch.save`, read without PyTorch and without running anything that a file asks for.

Both formats: pickles one after another, then the raw storages (before PyTorch 1.6), and a ZIP file with one pickle and
a file for each storage. The pickles may build dicts, lists, numbers, strings and tensors. Any other instruction or name
in them is refused, by its name, before the first one is carried out.
"""

from collections.abc import Callable
import io
import math
import pathlib
import pickle
import pickletools
from typing import Any, BinaryIO, NamedTuple
import zipfile

import numpy as np

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_OPCODES = frozenset(
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "MEMOIZE",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "POP",
        "POP_MARK",
        "DUP",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_LIST",
        "LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "GLOBAL",
        "REDUCE",
        "BUILD",
        "BINPERSID",
    ]
)
_BFLOAT16 = "bfloat16"  # which NumPy does not have
_DTYPES = {
    **{"Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": _BFLOAT16, "Bool": np.bool_},
    **{"Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8},
}


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


def _rebuild_tensor(storage, offset, shape, strides, *others) -> _Tensor:
    del others  # requires_grad and hooks
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_GLOBALS = {
    ("collections", "OrderedDict"): _Function(_Dict),
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
        if kind != "storage" or (view and view[0] is not None):
            raise TorchFileError(f"it refers to {identifier!r}, which is no plain storage")
        return _Storage(str(key), dtype, int(size))


def read(path: pathlib.Path) -> Any:
    """What was saved, with NumPy arrays for tensors and lists for tuples; bfloat16 becomes float32.

    Raises:
        TorchFileError: for a file that is damaged, is of another kind, or holds anything but plain data and tensors.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        try:
            content, read_storage = _read_zip(file) if zipfile.is_zipfile(file) else _read_old(file)
            return _resolve(content, {}, read_storage)
        except (TorchFileError, OSError):
            raise
        except Exception as error:  # a damaged pickle fails in nearly any way
            raise TorchFileError(f"it is damaged: {type(error).__name__}: {error}") from error


def _unpickle(file: BinaryIO) -> Any:
    """The next pickle of a file, checked before it is carried out."""
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name not in _OPCODES:
            raise TorchFileError(f"its pickle has the instruction {opcode.name} at byte {position}, which is refused")
        if opcode.name == "GLOBAL" and tuple(argument.split(" ", 1)) not in _GLOBALS:
            raise TorchFileError(f"its pickle names {argument.replace(' ', '.')}, which is refused")
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
    for key in map(str, keys):
        (count,) = np.frombuffer(file.read(8), "<i8")
        num_bytes = count * _item_size(sizes[key].dtype)
        storages[key] = file.read(num_bytes) if num_bytes >= 0 else b""
    return content, lambda storage: storages[storage.key]


def _read_zip(file: BinaryIO):
    archive = zipfile.ZipFile(file)
    (name,) = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    prefix = name.removesuffix("data.pkl")
    if f"{prefix}byteorder" in archive.namelist() and archive.read(f"{prefix}byteorder") != b"little":
        raise TorchFileError("it was written by a big-endian machine")
    content = _unpickle(io.BytesIO(archive.read(name)))
    contents = {storage.key: archive.read(f"{prefix}data/{storage.key}") for storage in _storages(content)}
    return content, lambda storage: contents[storage.key]


def _storages(content: Any) -> set[_Storage]:
    if isinstance(content, _Tensor):
        return {content.storage}
    if isinstance(content, dict):
        return set().union(*map(_storages, content.values()))
    return set().union(*map(_storages, content)) if isinstance(content, list | tuple) else set()


def _item_size(dtype: Any) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _resolve(content: Any, arrays: dict[_Storage, np.ndarray], read_storage: Callable[[_Storage], bytes]) -> Any:
    """The content with arrays; tensors that share a storage are read from it once."""
    if isinstance(content, _Tensor):
        storage = content.storage
        if storage not in arrays:
            arrays[storage] = _to_array(read_storage(storage), storage)
        return _view(arrays[storage], content)
    if isinstance(content, dict):
        return {name: _resolve(value, arrays, read_storage) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_resolve(value, arrays, read_storage) for value in content]
    return content


def _to_array(content: bytes, storage: _Storage) -> np.ndarray:
    if len(content) != storage.size * _item_size(storage.dtype):
        raise TorchFileError(f"storage {storage.key} has {len(content)} bytes instead of {storage.size} numbers")
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
