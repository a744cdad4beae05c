"""An ONNX graph under construction: nodes, constants, and shapes whose first dimension may be free."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

import numpy as np

from minmax_jax.errors import UserError

OPSET, _IR_VERSION = 13, 7  # of ONNX 1.8 (2020): the least that has all operations, for the sake of old readers
BATCH = "batch"  # name of the free dimension

# A number, or an expression of JAX's that holds the free dimension.
Dimension = Any


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


def is_free(dimension: Dimension) -> bool:
    """Whether a dimension is known when the graph runs only."""
    return not isinstance(dimension, int | np.integer)


class Graph:
    """Nodes in the order of their computation.

    Attributes:
        input: the only one.
        batch: the free dimension as JAX names it, None where all are known.
    """

    def __init__(self, name: str, shape: Sequence[Dimension]):
        """A graph of one input, float32.

        Args:
            name: of the input.
            shape: of the input; the first dimension may be free.
        """
        self.input = Tensor(name, tuple(shape))
        self.batch = shape[0] if is_free(shape[0]) else None
        self._nodes, self._constants = [], {}

    def apply(self, operation: str, *inputs: Value, shape: Sequence[Dimension], **attributes: Any) -> Tensor:
        """The only output of a node, of this shape."""
        return self.apply_many(operation, *inputs, shapes=[shape], **attributes)[0]

    def apply_many(
        self, operation: str, *inputs: Value, shapes: Sequence[Sequence[Dimension]], **attributes: Any
    ) -> list[Tensor]:
        """The outputs of a node, of these shapes."""
        from onnx import helper

        node = f"{operation}_{len(self._nodes)}"  # tools that convert a file find nodes by their names
        outputs = [Tensor(f"{node}_{index}", tuple(shape)) for index, shape in enumerate(shapes)]
        names = [self._name(value, operation) for value in inputs]
        results = [output.name for output in outputs]
        self._nodes.append(helper.make_node(operation, names, results, name=node, **attributes))
        return outputs

    def reshape(self, value: Value, shape: Sequence[Dimension]) -> Value:
        """The value in another shape, in which one dimension may be free."""
        shape = tuple(shape)
        if value.shape == shape:
            return value
        if isinstance(value, np.ndarray):
            return value.reshape(shape)
        if sum(map(is_free, shape)) > 1:
            raise UnsupportedError(f"a shape with several free dimensions, {shape}, has no form in ONNX.")
        sizes = np.array([-1 if is_free(size) else size for size in shape], np.int64)
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
        return self.apply("Expand", value, self._sizes(sizes), shape=shape)

    def _sizes(self, sizes: Sequence[Dimension]) -> Value:
        if not any(map(is_free, sizes)):
            return np.array(sizes, np.int64)
        if any(is_free(size) and str(size) != str(self.batch) for size in sizes):
            raise UnsupportedError(f"the shape {tuple(sizes)} has no form in ONNX.")
        whole = self.apply("Shape", self.input, shape=(len(self.input.shape),))
        batch = self.apply("Gather", whole, np.array([0]), shape=(1,))
        parts = [batch if is_free(size) else np.array([size], np.int64) for size in sizes]
        return self.apply("Concat", *parts, shape=(len(sizes),), axis=0)

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

        nodes, named = self._name_outputs(outputs), [_describe(name, value.shape) for name, value in outputs.items()]
        used, kept = set(outputs), []
        for node in reversed(nodes):
            if used & set(node.output):
                used |= set(node.input)
                kept.append(node)
        constants = [numpy_helper.from_array(array, n) for n, array in self._constants.values() if n in used]
        graph = helper.make_graph(
            kept[::-1], "minmax_jax", [_describe(self.input.name, self.input.shape)], named, constants
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="minmax_jax"
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model

    def _name_outputs(self, outputs: Mapping[str, Value]) -> list[Any]:
        """The nodes, with results that bear the names of the outputs alone: some programs show any name of a tensor."""
        from onnx import helper

        new_names, copies = {}, []
        for name, value in outputs.items():
            is_new = isinstance(value, Tensor) and value != self.input and value.name not in new_names
            if is_new:
                new_names[value.name] = name
            else:
                copies.append((self._name(value, "Identity"), name))
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [new_names.get(name, name) for name in names]
        return self._nodes + [
            helper.make_node("Identity", [new_names.get(source, source)], [name], name=f"output_{name}")
            for source, name in copies
        ]


def _describe(name: str, shape: Sequence[Dimension]) -> Any:
    from onnx import TensorProto, helper

    sizes = [BATCH if is_free(size) else int(size) for size in shape]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
