"""Walks through a jaxpr and writes each operation into an ONNX graph."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend import core
import numpy as np

from minmax_jax.export.onnx_conversion import arrays, elementwise, products
from minmax_jax.export.onnx_conversion.graph import Graph, UnsupportedError, Value, is_free

_OPERATIONS = arrays.OPERATIONS | products.OPERATIONS
# Parameters that hold the function of a call: of jit, of custom derivatives, of rematerialisation.
_FUNCTIONS = ("jaxpr", "call_jaxpr")
_SIZE = "dim_as_value"  # a free dimension as a value


def convert(
    jaxpr: core.ClosedJaxpr, *, input_name: str, output_names: Sequence[str], metadata: Mapping[str, str]
) -> Any:
    """A traced function of one float32 array as an `onnx.ModelProto`.

    What depends on constants alone is computed here, by JAX.

    Args:
        jaxpr: as of `jax.jit(f).trace(...).jaxpr`; dimensions of its input may be symbolic.
        input_name: of the array.
        output_names: of the results, in the order of the function's.
        metadata: text to keep in the file, by name.

    Raises:
        UnsupportedError: for an operation that is not in the tables of this package.
    """
    (argument,) = jaxpr.jaxpr.invars
    graph = Graph(input_name, argument.aval.shape)
    results = _evaluate(graph, jaxpr, [graph.input])
    shapes = [variable.aval.shape for variable in jaxpr.jaxpr.outvars]
    outputs = [graph.expand(result, shape) for result, shape in zip(results, shapes)]
    return graph.finish(dict(zip(output_names, outputs, strict=True)), metadata)


def _evaluate(graph: Graph, function: core.ClosedJaxpr | core.Jaxpr, arguments: Sequence[Value]) -> list[Value]:
    """The results of a function."""
    is_closed = hasattr(function, "consts")
    jaxpr, constants = (function.jaxpr, function.consts) if is_closed else (function, [])
    values = dict(zip(jaxpr.constvars, map(np.asarray, constants)))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(variable):
        is_literal = isinstance(variable, core.Literal)
        return np.asarray(variable.val, variable.aval.dtype) if is_literal else values[variable]

    for equation in jaxpr.eqns:
        results = _evaluate_equation(graph, equation, [read(variable) for variable in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _evaluate_equation(graph: Graph, equation: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
    name, are_constants = equation.primitive.name, all(isinstance(value, np.ndarray) for value in inputs)
    if name == "scan":
        return _unroll(graph, equation, inputs)
    if function := next((equation.params[key] for key in _FUNCTIONS if key in equation.params), None):
        return _evaluate(graph, function, inputs)
    if name == "broadcast_in_dim":
        return [_broadcast(graph, inputs[0], equation)]
    if name in elementwise.OPERATIONS:
        if are_constants:
            return _compute(equation, np.broadcast_arrays(*inputs))
        # Not the shape of JAX's result: what is broadcast there may not be here yet.
        shape = elementwise.broadcast_shape(value.shape for value in inputs)
        inputs = elementwise.without_leading_ones(inputs, rank=len(shape))
        return [elementwise.OPERATIONS[name](graph, *inputs, shape=shape, **equation.params)]
    inputs = [graph.expand(value, variable.aval.shape) for value, variable in zip(inputs, equation.invars)]
    shapes = [variable.aval.shape for variable in equation.outvars]
    is_known = name != _SIZE and not any(is_free(size) for shape in shapes for size in shape)
    if is_known and all(isinstance(value, np.ndarray) for value in inputs):
        return _compute(equation, inputs)
    if name not in _OPERATIONS:
        raise UnsupportedError(f"the primitive {name!r} of JAX has no form in ONNX here. Use format=stablehlo.")
    return _OPERATIONS[name](graph, *inputs, shapes=shapes, **equation.params)


def _compute(equation: core.JaxprEqn, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What depends on constants alone."""
    if compute := elementwise.BY_NUMPY.get(equation.primitive.name):
        return [np.asarray(compute(*inputs))]
    results = equation.primitive.bind(*inputs, **equation.params)
    return [np.asarray(result) for result in (results if equation.primitive.multiple_results else [results])]


def _broadcast(graph: Graph, value: Value, equation: core.JaxprEqn) -> Value:
    """The value with new dimensions of size 1: operations of ONNX broadcast by themselves."""
    shape, axes = [1] * len(equation.params["shape"]), equation.params["broadcast_dimensions"]
    for axis, size in zip(axes, value.shape):
        shape[axis] = size
    return graph.reshape(value, shape)


def _unroll(graph: Graph, equation: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
    """The results of a loop over the first dimension, such as that over mirror images: each pass by itself."""
    params = equation.params
    inputs = [graph.expand(value, variable.aval.shape) for value, variable in zip(inputs, equation.invars)]
    # Parameters with these numbers differ between versions of JAX; a sequence has one dimension more than its rows.
    body = params["jaxpr"]
    num_sequences = sum(len(a.aval.shape) > len(b.shape) for a, b in zip(equation.invars, body.in_avals))
    num_carried = sum(len(a.aval.shape) == len(b.shape) for a, b in zip(equation.outvars, body.out_avals))
    num_constants = len(inputs) - num_carried - num_sequences
    constants, rest = inputs[:num_constants], inputs[num_constants:]
    carried, sequences = rest[:num_carried], rest[num_carried:]
    rows = [None] * params["length"]
    for index in range(params["length"])[:: -1 if params["reverse"] else 1]:
        slices = [_take(graph, sequence, index) for sequence in sequences]
        results = _evaluate(graph, body, [*constants, *carried, *slices])
        carried, rows[index] = results[:num_carried], results[num_carried:]
    stacked = [
        arrays.stack(graph, *column, shapes=[variable.aval.shape], axis=0)[0]
        for column, variable in zip(zip(*rows), equation.outvars[num_carried:])
    ]
    return [*carried, *stacked]


def _take(graph: Graph, value: Value, index: int) -> Value:
    if isinstance(value, np.ndarray):
        return value[index]
    return graph.apply("Gather", value, np.array(index), shape=value.shape[1:], axis=0)
