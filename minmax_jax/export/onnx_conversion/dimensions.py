"""Free dimensions of shapes as values of an ONNX graph."""

import ast
import operator
from typing import Any

import numpy as np

# A number, or an expression of JAX's that holds free dimensions.
Dimension = Any

_OPERATORS = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}
_BY_NUMPY = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Mod": operator.mod,
    "Div": operator.floordiv,
}
_BY_NUMPY |= {"Max": np.maximum, "Min": np.minimum}


def is_free(dimension: Dimension) -> bool:
    """Whether a dimension is known when the graph runs only."""
    return not isinstance(dimension, int | np.integer)


class Evaluator:
    """Computes dimensions from the shape of a graph's input; each once.

    Attributes:
        names: of the free dimensions of the input, by axis.
    """

    def __init__(self, graph: Any):
        """Of a graph whose input has its shape."""
        self._graph = graph
        self.names = {str(size): axis for axis, size in enumerate(graph.input.shape) if is_free(size)}
        self._known = {}

    def evaluate(self, dimension: Dimension) -> Any:
        """A dimension as a vector of one number, int64."""
        if not is_free(dimension):
            return np.array([dimension], np.int64)
        # The text of an expression is one of Python, but for its powers; JAX documents it as what may be written.
        return self._compute(ast.parse(str(dimension).replace("^", "**"), mode="eval").body)

    def _compute(self, expression: ast.expr) -> Any:
        key = ast.dump(expression)
        if key not in self._known:
            self._known[key] = self._compute_new(expression)
        return self._known[key]

    def _compute_new(self, expression: ast.expr) -> Any:
        match expression:
            case ast.Constant(value=int(number)):
                return np.array([number], np.int64)
            case ast.Name(id=name) if name in self.names:
                whole = self._graph.apply("Shape", self._graph.input, shape=(len(self._graph.input.shape),))
                return self._graph.apply("Gather", whole, np.array([self.names[name]]), shape=(1,))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._apply("Sub", np.array([0], np.int64), self._compute(operand))
            case ast.BinOp(op=ast.Pow(), left=left, right=ast.Constant(value=int(power))) if power > 0:
                result = value = self._compute(left)
                for _ in range(power - 1):
                    result = self._apply("Mul", result, value)
                return result
            case ast.BinOp(op=operation, left=left, right=right) if type(operation) in _OPERATORS:
                return self._apply(_OPERATORS[type(operation)], self._compute(left), self._compute(right))
            case ast.Call(func=ast.Name(id="floordiv" | "mod" | "max" | "min" as name), args=[left, right]):
                return self._call(name, self._compute(left), self._compute(right))
        raise self._graph.unsupported(f"the dimension {ast.unparse(expression)} has no form in ONNX.")

    def _call(self, name: str, left: Any, right: Any) -> Any:
        if name in ("max", "min"):
            return self._apply(name.title(), left, right)
        rest = self._apply("Mod", left, right)  # of the sign of the divisor, as in Python
        # ONNX's division of whole numbers rounds towards 0, which is exact here.
        return rest if name == "mod" else self._apply("Div", self._apply("Sub", left, rest), right)

    def _apply(self, operation: str, *inputs: Any) -> Any:
        if all(isinstance(value, np.ndarray) for value in inputs):
            return _BY_NUMPY[operation](*inputs)
        return self._graph.apply(operation, *inputs, shape=(1,))
