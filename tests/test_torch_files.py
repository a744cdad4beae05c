"""Files of torch.save without PyTorch: what they hold, and what they may not ask for."""

import io
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest

from minmax_jax.interop import torch_files
from tests import torch_layout
from tests.torch_layout import Call, Global


def _read(tmp_path, content: bytes):
    (tmp_path / "weights.pth").write_bytes(content)
    return torch_files.read(tmp_path / "weights.pth")


@pytest.mark.parametrize("kind", torch_layout.FORMATS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "b1"])
def test_tensors_of_all_types_and_layouts(tmp_path, kind, dtype):
    array = np.arange(-6, 18).reshape(2, 3, 4).astype(dtype)
    content = {"a": array, "b": np.asfortranarray(array), "c": array[0, 0, 0], "d": np.zeros((0, 3), dtype)}
    content |= {"epoch": 3, "nested": {"list": [1.5, None, True], "text": "é"}, "e": np.array(array[1, 1, 1])}
    found = _read(tmp_path, torch_layout.FORMATS[kind]({**content, "c": np.array(content["c"])}))
    assert found["epoch"] == 3 and found["nested"] == content["nested"]
    for name in "abcde":
        assert found[name].dtype == np.dtype(dtype) and found[name].shape == np.shape(content[name])
        np.testing.assert_array_equal(found[name], content[name])
    found["a"][...] = 0  # an array of one's own


@pytest.mark.witness
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_pytorch_writes(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    content = {"state_dict": module.state_dict(), "parameter": torch.nn.Parameter(base), "view": base.t()[1:3, ::2]}
    content |= {"half": base.half(), "bfloat16": base.bfloat16(), "count": torch.tensor(7), "size": base.size()}
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=is_zip)
    found = torch_files.read(tmp_path / "weights.pth")
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(found["state_dict"][name], tensor.numpy())
    for name in ("parameter", "view", "half", "count"):
        np.testing.assert_array_equal(found[name], content[name].detach().numpy())
    np.testing.assert_array_equal(found["bfloat16"], content["bfloat16"].float().numpy())
    assert tuple(found["size"]) == (6, 4)


def _raw(opcodes: bytes) -> bytes:
    """A file of the old format whose content is this pickle."""
    start = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, start, protocol=2)
    return start.getvalue() + opcodes + pickle.dumps([], protocol=2)


_NAMES = [("os", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"), ("posix", "system")]
_NAMES += [("torch._utils", "_rebuild_tensor_v2.__globals__"), ("numpy", "load"), ("numpy.core.multiarray", "scalar")]
_NAMES += [("collections", "OrderedDict.fromkeys"), ("codecs", "encode"), ("functools", "partial")]


@pytest.mark.parametrize("kind", torch_layout.FORMATS)
@pytest.mark.parametrize("module, name", _NAMES)
def test_names_are_refused_by_name(tmp_path, kind, module, name):
    content = torch_layout.FORMATS[kind]({"a": Call(Global(module, name), "touch /tmp/ran")})
    with pytest.raises(torch_files.TorchFileError, match=f"names {module}.{name}, which is refused"):
        _read(tmp_path, content)


_STACK = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."
_INSTRUCTIONS = {
    "STACK_GLOBAL": _STACK,
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'true'\no.",
    "NEWOBJ": b"\x80\x02}\x81.",
    "NEWOBJ_EX": b"\x80\x04}}}\x92.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"Pkey\n.",
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 1) + b"a.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "EMPTY_SET": b"\x80\x04\x8f.",
}


@pytest.mark.parametrize("name", _INSTRUCTIONS)
def test_instructions_are_refused_by_name(tmp_path, name):
    # Also behind a jump that a frame makes, and where an earlier name would have been refused.
    with pytest.raises(torch_files.TorchFileError, match=f"the instruction {name} at byte|names os.system"):
        _read(tmp_path, _raw(_INSTRUCTIONS[name]))


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00callK\x01sb.",  # an attribute of a function
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x04\x00\x00\x00callK\x01s\x86b.",  # in its second form
        b"\x80\x02ctorch\nFloatStorage\nK\x03\x85R.",  # a type that is called
        b"\x80\x02ctorch\nSize\n}\x85R.",
    ],
)
def test_what_is_named_cannot_be_changed_or_misused(tmp_path, opcodes):
    before = torch_files._GLOBALS["torch._utils", "_rebuild_tensor_v2"].call
    try:
        found = _read(tmp_path, _raw(opcodes))
    except torch_files.TorchFileError:
        found = ()
    assert not isinstance(found, np.ndarray) or found.size == 3
    assert torch_files._GLOBALS["torch._utils", "_rebuild_tensor_v2"].call is before


@pytest.mark.parametrize(
    "offset, shape, strides, is_inside",
    [
        (0, (2, 3), (3, 1), True),
        (1, (5,), (1,), True),
        (0, (3, 2), (1, 3), True),
        (6, (0,), (1,), True),
        (1, (6,), (1,), False),
        (0, (2, 3), (4, 1), False),
        (-1, (2,), (1,), False),
        (0, (2,), (-1,), False),
        (0, (10**9,), (0,), False),
        (0, (2, 3), (1,), False),
        (0, (-2, 3), (1, 1), False),
        (0, (2**40, 2**40), (0, 0), False),
    ],
)
def test_tensors_stay_within_their_storage(offset, shape, strides, is_inside):
    storage = torch_files._Storage("0", np.float32, 6)
    tensor = torch_files._Tensor(storage, offset, shape, strides)
    numbers = np.arange(6, dtype=np.float32)
    if is_inside:
        expected = [offset + sum(np.multiply(index, strides)) for index in np.ndindex(*shape)]
        np.testing.assert_array_equal(torch_files._view(numbers, tensor).ravel(), expected)
    else:
        with pytest.raises((torch_files.TorchFileError, ValueError), match=r"reaches beyond its storage|zip\(\)"):
            torch_files._view(numbers, tensor)


@pytest.mark.parametrize("kind", torch_layout.FORMATS)
def test_cut_files_are_damaged(tmp_path, kind):
    whole = torch_layout.FORMATS[kind]({"a": np.arange(100, dtype=np.float32)})
    for share in (0, 0.2, 0.5, 0.9, 0.999):
        with pytest.raises(torch_files.TorchFileError):
            _read(tmp_path, whole[: int(share * len(whole))])
    with pytest.raises(torch_files.TorchFileError):
        _read(tmp_path, b"<html>404</html>")
    with pytest.raises(FileNotFoundError):
        torch_files.read(tmp_path / "absent.pth")


# What a small file may cost.


def _nested(kind: str, depth: int):
    """The same object twice in the next, `depth` times: 2 ** depth parts."""
    value = [1.5] if kind == "list" else (1.5,)
    for _ in range(depth):
        value = [value, value] if kind == "list" else (value, value)
    return value


@pytest.mark.parametrize("form", torch_layout.FORMATS)
@pytest.mark.parametrize("kind", ["list", "tuple"])
def test_an_object_in_many_places_is_read_once(tmp_path, form, kind):
    content = torch_layout.FORMATS[form]({"a": _nested(kind, 60), "b": np.arange(3, dtype=np.float32)})
    assert len(content) < 2000
    start = time.process_time()
    found = _read(tmp_path, content)
    assert time.process_time() - start < 1
    np.testing.assert_array_equal(found["b"], [0, 1, 2])
    value = found["a"]
    for _ in range(60):
        assert value[0] is value[1]
        value = value[0]
    assert value == [1.5]


@pytest.mark.parametrize("is_called", [False, True])
def test_keys_are_numbers_or_text(tmp_path, is_called):
    """Python would compute the hash of a tuple from all its parts."""
    pickled = io.BytesIO()
    torch_layout._Pickler(pickled, {}, ()).dump(_nested("tuple", 60))
    key = pickled.getvalue()[2:-1]  # without its first and last instruction
    ordered = b"ccollections\nOrderedDict\n"
    opcodes = ordered + b"((" + key + b"K\x01tl\x85R." if is_called else b"}" + key + b"K\x01s."
    start = time.process_time()
    with pytest.raises(torch_files.TorchFileError, match="a key that is neither a number nor text"):
        _read(tmp_path, _raw(b"\x80\x02" + opcodes))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("opcodes", [b"\x80\x02]r\x00\x00\x00\x7f.", b"\x80\x02]p2130706432\n."])
def test_numbers_of_values_are_bounded_by_the_file(tmp_path, opcodes):
    """Pickle allocates memory for all numbers up to the one that is named: 17 GB here."""
    with pytest.raises(torch_files.TorchFileError, match="counts values up to 2130706432 at byte"):
        _read(tmp_path, _raw(opcodes))


def test_what_holds_itself_is_refused(tmp_path):
    content = [1]
    content.append(content)
    with pytest.raises(torch_files.TorchFileError, match="a list or a dict that holds itself"):
        _read(tmp_path, torch_layout.write_zip({"a": content}))


def _compress(content: bytes) -> bytes:
    """The same archive, with members that are compressed."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return result.getvalue()


def test_compressed_storages_are_bounded_by_the_file(tmp_path, monkeypatch):
    numbers = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    found = _read(tmp_path, _compress(torch_layout.write_zip({"a": numbers})))
    np.testing.assert_array_equal(found["a"], numbers)
    content = _compress(torch_layout.write_zip({"a": np.zeros(10**6, np.float32)}))
    assert len(content) < 10_000
    read = zipfile.ZipFile.read

    def read_small(archive, name):
        assert archive.getinfo(name).file_size < 10_000, f"{name} was inflated"
        return read(archive, name)

    monkeypatch.setattr(zipfile.ZipFile, "read", read_small)
    with pytest.raises(torch_files.TorchFileError, match="more than 8 times its size, compressed: weights/data/0 is"):
        _read(tmp_path, content)


def test_storages_are_as_long_as_they_are_said_to_be(tmp_path):
    content = {"a": np.arange(100, dtype=np.float32)}
    whole = torch_layout.write_old(content)
    length = whole.rindex(np.int64(100).tobytes())
    with pytest.raises(torch_files.TorchFileError, match="storage 0 has 99 numbers instead of 100"):
        _read(tmp_path, whole[:length] + np.int64(99).tobytes() + whole[length + 8 :])
    with pytest.raises(torch_files.TorchFileError, match="storage 0 of 400 bytes is longer than the file"):
        _read(tmp_path, whole[:-1])


@pytest.mark.parametrize("count, is_allowed", [(8, True), (9, False)])
def test_tensors_that_show_one_storage_are_bounded(tmp_path, count, is_allowed):
    """Each is a copy; a file of views of one storage would fill the memory."""
    storage = torch_layout._Storage("0", np.arange(1000, dtype=np.float32))
    call = Global("torch._utils", "_rebuild_tensor_v2")
    tensors = [Call(call, storage, 0, (1000,), (1,), False, {}) for _ in range(count)]
    pickled, file = io.BytesIO(), io.BytesIO()
    torch_layout._Pickler(pickled, {}, ()).dump(tensors)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/data.pkl", pickled.getvalue())
        archive.writestr("weights/data/0", storage.array.tobytes())
    if is_allowed:
        assert [array.tolist() for array in _read(tmp_path, file.getvalue())] == [list(range(1000))] * count
    else:
        with pytest.raises(torch_files.TorchFileError, match="show more than 8 times the numbers that it holds"):
            _read(tmp_path, file.getvalue())
