"""Operations on each number by itself. Shapes are broadcast as by NumPy, which JAX has done in operations before."""

from collections.abc import Iterable
import functools

import numpy as np

from minmax_jax.export.onnx_conversion.graph import Dimension, Graph, Tensor, UnsupportedError, Value

# JAX's name: ONNX's name of the same operation.
_SAME = {
    "abs": "Abs",
    "add": "Add",
    "and": "And",
    "ceil": "Ceil",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}


def broadcast_shape(shapes: Iterable[tuple[Dimension, ...]]) -> tuple[Dimension, ...]:
    """The common shape of several; a number has any rank."""
    shapes = [shape for shape in shapes if shape] or [()]
    return tuple(next((size for size in sizes if str(size) != "1"), 1) for sizes in zip(*shapes, strict=True))


def without_leading_ones(inputs: Iterable[Value], *, rank: int) -> list[Value]:
    """The inputs of an operation, with constants [1, ..., 1, K] as vectors [K], which ONNX broadcasts alike.

    Programs that join a product with the bias that is added to it take a bias for what it is by its rank.
    """
    inputs = list(inputs)
    if not any(isinstance(value, Tensor) and len(value.shape) == rank for value in inputs):
        return inputs
    return [_as_vector(value) if isinstance(value, np.ndarray) else value for value in inputs]


def _as_vector(value: np.ndarray) -> np.ndarray:
    while value.ndim > 1 and value.shape[0] == 1:
        value = value[0]
    return value


def _same(operation: str, graph: Graph, *inputs: Value, shape, **params) -> Tensor:
    return graph.apply(operation, *inputs, shape=shape)


def _max(graph: Graph, *inputs: Value, shape, **params) -> Tensor:
    """A maximum with 0 by the name that programs look for after a convolution."""
    others = [value for value in inputs if not (isinstance(value, np.ndarray) and _is_zero(value))]
    is_relu = len(others) == 1 and isinstance(others[0], Tensor) and len(others[0].shape) == len(shape)
    return graph.apply("Relu", *others, shape=shape) if is_relu else graph.apply("Max", *inputs, shape=shape)


def _is_zero(value: np.ndarray) -> bool:
    return value.size == 1 and value.dtype == np.float32 and not value.any()


def _not_equal(graph: Graph, x: Value, y: Value, *, shape, **params) -> Tensor:
    return graph.apply("Not", graph.apply("Equal", x, y, shape=shape), shape=shape)


def _rsqrt(graph: Graph, x: Value, *, shape, **params) -> Tensor:
    return graph.apply("Reciprocal", graph.apply("Sqrt", x, shape=shape), shape=shape)


def _rem(graph: Graph, x: Value, y: Value, *, shape, **params) -> Tensor:
    return graph.apply("Mod", x, y, shape=shape, fmod=1)  # of the sign of the dividend


def _square(graph: Graph, x: Value, *, shape, **params) -> Tensor:
    return graph.apply("Mul", x, x, shape=shape)


def _integer_pow(graph: Graph, x: Value, *, shape, y: int, **params) -> Tensor:
    return graph.apply("Pow", x, np.array(y, np.float32), shape=shape)


def _erfc(graph: Graph, x: Value, *, shape, **params) -> Tensor:
    return graph.apply("Sub", np.array(1, np.float32), graph.apply("Erf", x, shape=shape), shape=shape)


def _log1p(graph: Graph, x: Value, *, shape, **params) -> Tensor:
    return graph.apply("Log", graph.apply("Add", x, np.array(1, np.float32), shape=shape), shape=shape)


def _select(graph: Graph, which: Value, *cases: Value, shape, **params) -> Tensor:
    if len(cases) != 2:
        raise UnsupportedError(f"the primitive 'select_n' with {len(cases)} cases has no form in ONNX here.")
    return graph.apply("Where", which, cases[1], cases[0], shape=shape)


def _clamp(graph: Graph, minimum: Value, x: Value, maximum: Value, *, shape, **params) -> Tensor:
    return graph.apply("Min", graph.apply("Max", x, minimum, shape=shape), maximum, shape=shape)


def cast(graph: Graph, x: Value, *, shape, new_dtype, **params) -> Tensor:
    """The value in another type; numbers lose their fraction on the way to whole ones.

    Args:
        graph: the graph to add a node to.
        x: the value.
        shape: of the value and of the output.
        new_dtype: data type of the output.
        **params: further parameters of JAX's primitive, not used.
    """
    from onnx import helper

    return graph.apply("Cast", x, shape=shape, to=helper.np_dtype_to_tensor_dtype(np.dtype(new_dtype)))


def _itself(graph: Graph, x: Value, *, shape, **params) -> Value:
    return x


# Of constants, such as those of batch norm: by NumPy, for JAX would compile each shape.
BY_NUMPY = {"add": np.add, "mul": np.multiply, "rsqrt": lambda x: 1 / np.sqrt(x), "sub": np.subtract}
OPERATIONS = {name: functools.partial(_same, operation) for name, operation in _SAME.items()} | {
    "clamp": _clamp,
    "convert_element_type": cast,
    "copy": _itself,
    "copy_p": _itself,
    "erfc": _erfc,
    "integer_pow": _integer_pow,
    "log1p": _log1p,
    "max": _max,
    "ne": _not_equal,
    "rem": _rem,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "square": _square,
    "stop_gradient": _itself,
}
