"""An ONNX graph under construction: nodes, constants, and shapes whose dimensions may be free."""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

import numpy as np

from minmax_jax.base.errors import UserError
from minmax_jax.export.onnx_conversion.dimensions import Dimension, Evaluator, is_free

OPSET, _IR_VERSION = 13, 7  # of ONNX 1.8 (2020): the lowest that has all operations, for the sake of old readers
FREE = ("batch", "height", "width", "channels")  # names of free dimensions of the input, by axis


class UnsupportedError(UserError):
    """An operation that has no form in ONNX here; the message names the primitive."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that the graph computes.

    Attributes:
        name: in the graph.
        shape: its dimensions; 1 also where JAX has already broadcast and ONNX still will.
    """

    name: str
    shape: tuple[Dimension, ...]


Value = Tensor | np.ndarray


class Graph:
    """Nodes in the order of their computation.

    Attributes:
        input: the only one.
    """

    def __init__(self, name: str, shape: Sequence[Dimension]):
        """A graph of one input, float32.

        Args:
            name: of the input.
            shape: of the input; dimensions may be free, those of images [B, H, W, K] by their names.
        """
        self.input = Tensor(name, tuple(shape))
        self._nodes, self._constants = [], {}
        self._dimensions = Evaluator(self)

    @staticmethod
    def unsupported(message: str) -> UnsupportedError:
        """The error for what has no form here."""
        return UnsupportedError(message)

    def apply(self, operation: str, *inputs: Value, shape: Sequence[Dimension], **attributes: Any) -> Tensor:
        """The only output of a node, of this shape.

        Args:
            operation: of ONNX, such as "Concat".
            *inputs: of the node.
            shape: of the output.
            **attributes: of the node.
        """
        return self.apply_many(operation, *inputs, shapes=[shape], **attributes)[0]

    def apply_many(
        self, operation: str, *inputs: Value, shapes: Sequence[Sequence[Dimension]], **attributes: Any
    ) -> list[Tensor]:
        """The outputs of a node, of these shapes.

        Args:
            operation: of ONNX, such as "TopK".
            *inputs: of the node.
            shapes: of the outputs.
            **attributes: of the node.
        """
        from onnx import helper

        node = f"{operation}_{len(self._nodes)}"  # tools that convert a file find nodes by their names
        outputs = [Tensor(f"{node}_{index}", tuple(shape)) for index, shape in enumerate(shapes)]
        names = [self._name(value, operation) for value in inputs]
        results = [output.name for output in outputs]
        self._nodes.append(helper.make_node(operation, names, results, name=node, **attributes))
        return outputs

    def reshape(self, value: Value, shape: Sequence[Dimension]) -> Value:
        """The value in another shape, in which dimensions may be free."""
        shape = tuple(shape)
        if value.shape == shape:
            return value
        if isinstance(value, np.ndarray):
            return value.reshape(shape)
        inferred = next((axis for axis, size in enumerate(shape) if is_free(size)), None)  # ONNX infers one of them
        sizes = self.sizes([-1 if axis == inferred else size for axis, size in enumerate(shape)])
        return self.apply("Reshape", value, sizes, shape=shape)

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """The value with its dimensions in another order."""
        order = list(map(int, order))
        if order == list(range(len(order))):
            return value
        if isinstance(value, np.ndarray):
            return value.transpose(order)
        return self.apply("Transpose", value, shape=[value.shape[axis] for axis in order], perm=order)

    def expand(self, value: Value, shape: Sequence[Dimension]) -> Value:
        """The value in the whole of a shape that it was to be broadcast to."""
        shape = tuple(shape)
        if value.shape == shape:
            return value
        if isinstance(value, np.ndarray) and not any(map(is_free, shape)):
            return np.broadcast_to(value, shape)
        # A dimension that is right already counts as 1: ONNX broadcasts both ways.
        sizes = [1 if str(is_) == str(wanted) else wanted for is_, wanted in zip(value.shape, shape)]
        return self.apply("Expand", value, self.sizes(sizes), shape=shape)

    def sizes(self, sizes: Sequence[Dimension]) -> Value:
        """Dimensions as a vector, int64."""
        if not any(map(is_free, sizes)):
            return np.array(sizes, np.int64)
        parts = [self._dimensions.evaluate(size) for size in sizes]
        return parts[0] if len(parts) == 1 else self.apply("Concat", *parts, shape=(len(sizes),), axis=0)

    def _name(self, value: Value, operation: str) -> str:
        """The name of a value; equal constants are kept once for all nodes of one operation.

        Not for all: programs that convert a file to float16 leave some operations, and their constants, in float32.
        """
        if isinstance(value, Tensor):
            return value.name
        value = np.ascontiguousarray(value).reshape(value.shape)  # which makes a vector of a number
        key = operation, value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).digest()
        name, _ = self._constants.setdefault(key, (f"constant_{len(self._constants)}", value))
        return name

    def finish(self, outputs: Mapping[str, Value], metadata: Mapping[str, str]) -> Any:
        """The model, an `onnx.ModelProto`, without nodes that nothing reads.

        Args:
            outputs: the float32 results, by name.
            metadata: text to keep in the file, by name.
        """
        import onnx
        from onnx import helper, numpy_helper

        free = {str(size): FREE[axis] for axis, size in enumerate(self.input.shape)}
        named = [_describe(name, value.shape, free) for name, value in outputs.items()]
        sources = {name: self._name(value, "Identity") for name, value in outputs.items()}
        kept = self._needed_for(set(sources.values()))
        kept += _name_outputs(kept, sources, produced={name for node in kept for name in node.output})
        used = {name for node in kept for name in node.input}
        constants = [numpy_helper.from_array(array, n) for n, array in self._constants.values() if n in used]
        given = [_describe(self.input.name, self.input.shape, free)]
        graph = helper.make_graph(kept, "minmax_jax", given, named, constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="minmax_jax"
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model

    def _needed_for(self, used: set[str]) -> list[Any]:
        """The nodes that these values depend on, in order."""
        kept = []
        for node in reversed(self._nodes):
            if used & set(node.output):
                used = used | set(node.input)
                kept.append(node)
        return kept[::-1]


def _name_outputs(nodes: Sequence[Any], sources: Mapping[str, str], *, produced: Collection[str]) -> list[Any]:
    """Gives results the names of the outputs, of which some programs show any: a new name, or one more node.

    A copy is made of what other nodes read as well: conversion to float16 fails for an output that is read.
    """
    from onnx import helper

    read, new_names, copies = {name for node in nodes for name in node.input}, {}, []
    for name, source in sources.items():
        if source in produced and source not in read and source not in new_names:
            new_names[source] = name
        else:
            copies.append((source, name))
    for node in nodes:
        node.output[:] = [new_names.get(name, name) for name in node.output]
    return [
        helper.make_node("Identity", [new_names.get(source, source)], [name], name=f"output_{name}")
        for source, name in copies
    ]


def _describe(name: str, shape: Sequence[Dimension], free: Mapping[str, str]) -> Any:
    from onnx import TensorProto, helper

    sizes = [free.get(str(size), str(size)) if is_free(size) else int(size) for size in shape]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
