"""Operations on the dimensions of arrays: shapes, slices, reductions, sorting."""

from collections.abc import Mapping, Sequence
import functools

import numpy as np

from minmax_jax.export.onnx_conversion.elementwise import cast
from minmax_jax.export.onnx_conversion.graph import Dimension, Graph, Tensor, UnsupportedError, Value

_END = np.iinfo(np.int64).max


def _reshape(graph: Graph, x: Value, *, shapes, **params) -> list[Value]:
    return [graph.reshape(x, shapes[0])]


def _transpose(graph: Graph, x: Value, *, shapes, permutation) -> list[Value]:
    return [graph.transpose(x, permutation)]


def _concatenate(graph: Graph, *values: Value, shapes, dimension: int) -> list[Tensor]:
    return [graph.apply("Concat", *values, shape=shapes[0], axis=dimension)]


def stack(graph: Graph, *values: Value, shapes, axis: int) -> list[Tensor]:
    """Values side by side along a new dimension.

    Args:
        graph: the graph to add nodes to.
        *values: values of one shape.
        shapes: [the shape of the output].
        axis: the new dimension of the output.
    """
    one = [*shapes[0][:axis], 1, *shapes[0][axis + 1 :]]
    whole = [graph.expand(value, [*one[:axis], *one[axis + 1 :]]) for value in values]
    return [graph.apply("Concat", *(graph.reshape(value, one) for value in whole), shape=shapes[0], axis=axis)]


def _cut(graph: Graph, x: Value, shape, bounds: Sequence[tuple[int, int, int, int]]) -> Value:
    """The part between (axis, start, end, step)."""
    if not bounds:
        return x
    axes, starts, ends, steps = zip(*bounds)
    starts, ends = graph.sizes(starts), graph.sizes(ends)
    return graph.apply("Slice", x, starts, ends, np.array(axes), np.array(steps), shape=shape)


def _unstack(graph: Graph, x: Value, *, shapes, axis: int) -> list[Value]:
    """The parts along a dimension, which they lose: a primitive of JAX 0.12, for `a, b = x` as well."""
    one = [*x.shape[:axis], 1, *x.shape[axis + 1 :]]
    parts = [_cut(graph, x, one, [(axis, index, index + 1, 1)]) for index in range(len(shapes))]
    return [graph.reshape(part, shape) for part, shape in zip(parts, shapes)]


def _rev(graph: Graph, x: Value, *, shapes, dimensions) -> list[Value]:
    return [_cut(graph, x, shapes[0], [(axis, -1, -_END, -1) for axis in dimensions])]


def _slice(graph: Graph, x: Value, *, shapes, start_indices, limit_indices, strides) -> list[Value]:
    bounds = zip(range(len(x.shape)), start_indices, limit_indices, strides or [1] * len(x.shape))
    return [_cut(graph, x, shapes[0], [cut for cut in bounds if not _is_whole(x.shape[cut[0]], *cut[1:])])]


def _is_whole(size: Dimension, start: Dimension, end: Dimension, step: int) -> bool:
    return str(start) == "0" and str(end) == str(size) and step == 1


def _pad(graph: Graph, x: Value, value: Value, *, shapes, padding_config) -> list[Tensor]:
    before, after, between = zip(*padding_config)
    if any(between):
        raise UnsupportedError("the primitive 'pad' with interior padding has no form in ONNX here.")
    return [graph.apply("Pad", x, np.array([*before, *after], np.int64), value, shape=shapes[0])]


def _reduce(operation: str, graph: Graph, x: Value, *, shapes, axes, **params) -> list[Tensor]:
    if operation == "ReduceSum":  # whose axes are an input since opset 13; those of the others since 18
        return [graph.apply(operation, x, np.array(axes, np.int64), shape=shapes[0], keepdims=0)]
    return [graph.apply(operation, x, shape=shapes[0], axes=list(map(int, axes)), keepdims=0)]


def _reduce_or(graph: Graph, x: Value, *, shapes, axes, **params) -> list[Tensor]:
    numbers = cast(graph, x, shape=x.shape, new_dtype=np.int32)
    (found,) = _reduce("ReduceMax", graph, numbers, shapes=shapes, axes=axes)
    return [cast(graph, found, shape=shapes[0], new_dtype=bool)]


def _argmax(graph: Graph, x: Value, *, shapes, axes, index_dtype) -> list[Tensor]:
    found = graph.apply("ArgMax", x, shape=shapes[0], axis=int(axes[0]), keepdims=0)
    return [cast(graph, found, shape=shapes[0], new_dtype=index_dtype)]


def _top_k(graph: Graph, x: Value, *, shapes, k: int, axis: int, is_stable: bool = True) -> list[Tensor]:
    del is_stable  # of JAX 0.12; ONNX orders equal values by their index, as a stable sort does
    values, indices = graph.apply_many("TopK", x, graph.sizes([k]), shapes=shapes, axis=axis)
    return [values, cast(graph, indices, shape=shapes[1], new_dtype=np.int32)]


def _sort(graph: Graph, *values: Value, shapes, dimension: int, **params) -> list[Tensor]:
    if len(values) > 1:
        raise UnsupportedError("the primitive 'sort' of several arrays has no form in ONNX here.")
    count = graph.sizes([shapes[0][dimension]])
    return graph.apply_many("TopK", *values, count, shapes=[shapes[0]] * 2, axis=dimension, largest=0)[:1]


def _dynamic_slice(graph: Graph, x: Value, *starts: Value, shapes, slice_sizes) -> list[Value]:
    if not all(isinstance(start, np.ndarray) for start in starts):
        raise UnsupportedError("the primitive 'dynamic_slice' at computed places has no form in ONNX here.")
    last = [size - length for size, length in zip(x.shape, slice_sizes)]
    starts = {axis: min(max(int(start), 0), last[axis]) for axis, start in enumerate(starts)}
    return [_part(graph, x, shapes[0], starts, slice_sizes)]


def _part(graph: Graph, x: Value, shape, starts: Mapping[int, int], sizes: Sequence[Dimension]) -> Value:
    """The part of these sizes that starts there, with fewer dimensions where the shape has fewer."""
    bounds = [(axis, start, start + sizes[axis], 1) for axis, start in starts.items()]
    bounds = [cut for cut in bounds if not _is_whole(x.shape[cut[0]], *cut[1:])]
    return graph.reshape(_cut(graph, x, sizes, bounds), shape)


def _gather(
    graph: Graph, x: Value, indices: Value, *, shapes, dimension_numbers, slice_sizes, mode, **params
) -> list[Value]:
    """Slices at places that are constants: one slice, or several along one dimension; or one at a computed place."""
    axes = tuple(dimension_numbers.start_index_map)
    others = [axis for axis in range(len(x.shape)) if axis not in axes]
    is_whole = all(str(slice_sizes[axis]) == str(x.shape[axis]) for axis in others)
    if not isinstance(indices, np.ndarray) and is_whole and len(axes) == 1 and str(slice_sizes[axes[0]]) == "1":
        return [_gather_computed(graph, x, axes[0], indices, shapes[0], dimension_numbers, mode)]
    if not isinstance(indices, np.ndarray) or not is_whole:
        raise UnsupportedError("the primitive 'gather' at computed places has no form in ONNX here.")
    last = np.array([x.shape[axis] - slice_sizes[axis] for axis in axes])
    if "PROMISE" not in str(mode) and np.any((indices < 0) | (indices > last)):
        raise UnsupportedError("the primitive 'gather' out of bounds has no form in ONNX here.")
    if indices.ndim == 1:
        return [_part(graph, x, shapes[0], dict(zip(axes, indices.tolist())), slice_sizes)]
    if len(axes) > 1:
        raise UnsupportedError("the primitive 'gather' along several dimensions has no form in ONNX here.")
    return [_gather_along(graph, x, axes[0], indices[..., 0], shapes[0], dimension_numbers, slice_sizes)]


def _gather_computed(graph: Graph, x: Value, axis: int, indices: Value, shape, numbers, mode) -> Value:
    starts = graph.reshape(indices, indices.shape[:-1])
    if "CLIP" in str(mode):
        minimum, last = (
            np.array(0, np.int32),
            cast(graph, graph.sizes([x.shape[axis] - 1]), shape=(1,), new_dtype=np.int32),
        )
        starts = graph.apply("Max", starts, minimum, shape=starts.shape)
        starts = graph.apply("Min", starts, last, shape=starts.shape)
    elif "PROMISE" not in str(mode):
        raise UnsupportedError(f"the primitive 'gather' with mode {mode} at computed places has no form in ONNX here.")
    return _gather_at(graph, x, axis, graph.reshape(starts, [*starts.shape, 1]), shape, numbers)


def _gather_along(graph: Graph, x: Value, axis: int, starts: np.ndarray, shape, numbers, slice_sizes) -> Value:
    return _gather_at(graph, x, axis, starts[..., None] + np.arange(slice_sizes[axis]), shape, numbers)


def _gather_at(graph: Graph, x: Value, axis: int, places: Value, shape, numbers) -> Value:
    # What each dimension is, as ONNX orders them and as JAX does: one of the array, or one of the places.
    of_places = [("places", number) for number in range(len(places.shape) - 1)]
    given = [("x", number) for number in range(len(x.shape))]
    given[axis:axis] = of_places
    kept = iter([("x", n) for n in range(len(x.shape)) if n not in numbers.collapsed_slice_dims])
    new = iter(of_places)
    wanted = [next(kept if n in numbers.offset_dims else new) for n in range(len(shape))]
    dropped = [label for label in given if label not in wanted]  # of size 1
    read = graph.apply("Gather", x, places, shape=[*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]], axis=axis)
    return graph.reshape(graph.transpose(read, [given.index(label) for label in [*dropped, *wanted]]), shape)


def _iota(graph: Graph, *sizes: Value, shapes, dtype, dimension: int, **params) -> list[Value]:
    """0, 1, ... along a dimension, where one of the shape is free."""
    del sizes
    (shape,) = shapes
    count = graph.reshape(graph.sizes([shape[dimension]]), ())
    numbers = graph.apply("Range", np.array(0), count, np.array(1), shape=(shape[dimension],))
    numbers = cast(graph, numbers, shape=numbers.shape, new_dtype=dtype)
    return [graph.reshape(numbers, [size if axis == dimension else 1 for axis, size in enumerate(shape)])]


def _dim_as_value(graph: Graph, *, shapes, dim) -> list[Value]:
    value = cast(graph, graph.sizes([dim]), shape=(1,), new_dtype=np.int32)
    return [graph.reshape(value, ())]


OPERATIONS = {
    "argmax": _argmax,
    "concatenate": _concatenate,
    "dim_as_value": _dim_as_value,
    "dynamic_slice": _dynamic_slice,
    "expand_dims": _reshape,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reduce_max": functools.partial(_reduce, "ReduceMax"),
    "reduce_min": functools.partial(_reduce, "ReduceMin"),
    "reduce_or": _reduce_or,
    "reduce_sum": functools.partial(_reduce, "ReduceSum"),
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "sort": _sort,
    "squeeze": _reshape,
    "stack": stack,
    "top_k": _top_k,
    "transpose": _transpose,
    "unstack": _unstack,
}
