"""Files as `torch.save` writes them, in both formats, without PyTorch."""

import io
import pickle
import zipfile

import numpy as np

_KINDS = {"f4": "Float", "f8": "Double", "f2": "Half", "b1": "Bool", "i8": "Long", "i4": "Int", "i2": "Short"}
_KINDS |= {"i1": "Char", "u1": "Byte"}


class Global:
    """A name that a pickle imports."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("only named")


class Call:
    """A call that a pickle makes."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class _Pickler(pickle._Pickler):
    def __init__(self, file, storages, view):
        super().__init__(file, protocol=2)
        self.storages, self.view = storages, view

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save_reduce(obj.function, obj.arguments)
        elif isinstance(obj, np.ndarray):
            key = str(len(self.storages))
            self.storages[key] = obj
            strides = tuple(step // obj.itemsize for step in obj.strides)
            arguments = (_Storage(key, obj), 0, obj.shape, strides, False, Call(Global("collections", "OrderedDict")))
            self.save_reduce(Global("torch._utils", "_rebuild_tensor_v2"), arguments)
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        kind = Global("torch", f"{_KINDS[obj.array.dtype.str[1:]]}Storage")
        return ("storage", kind, obj.key, "cpu", obj.array.size, *self.view)


class _Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


def write_old(content) -> bytes:
    """The format of before 1.6."""
    file, storages = io.BytesIO(), {}
    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(part, file, protocol=2)
    _Pickler(file, storages, view=(None,)).dump(content)
    pickle.dump(list(storages), file, protocol=2)
    for array in storages.values():
        file.write(np.int64(array.size).tobytes() + array.ravel(order="K").tobytes())
    return file.getvalue()


def write_zip(content) -> bytes:
    """The format since 1.6."""
    file, pickled, storages = io.BytesIO(), io.BytesIO(), {}
    _Pickler(pickled, storages, view=()).dump(content)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/data.pkl", pickled.getvalue())
        archive.writestr("weights/byteorder", "little")
        for key, array in storages.items():
            archive.writestr(f"weights/data/{key}", array.ravel(order="K").tobytes())
        archive.writestr("weights/version", "3\n")
    return file.getvalue()


FORMATS = {"old": write_old, "zip": write_zip}
