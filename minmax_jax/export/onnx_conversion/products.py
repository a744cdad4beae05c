"""Convolutions, pooling and products of matrices; ONNX has channels before rows and columns."""

from collections.abc import Sequence

import numpy as np

from minmax_jax.export.onnx_conversion.graph import Graph, UnsupportedError, Value


def _convolve(
    graph: Graph,
    images: Value,
    kernel: Value,
    *,
    shapes,
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers,
    feature_group_count: int,
    batch_group_count: int,
    **params,
) -> list[Value]:
    if batch_group_count != 1 or any(step != 1 for step in lhs_dilation) or min(map(min, padding)) < 0:
        raise UnsupportedError("the primitive 'conv_general_dilated' of a transposed kind has no form in ONNX here.")
    outputs = dimension_numbers.out_spec
    shape = [shapes[0][axis] for axis in outputs]
    window = [kernel.shape[axis] for axis in dimension_numbers.rhs_spec[2:]]
    sums = graph.apply(
        "Conv",
        graph.transpose(images, dimension_numbers.lhs_spec),
        graph.transpose(kernel, dimension_numbers.rhs_spec),
        shape=shape,
        kernel_shape=window,  # optional, but some readers of ONNX ask for it
        strides=window_strides,
        pads=_pads(padding),
        dilations=rhs_dilation,
        group=feature_group_count,
    )
    return [graph.transpose(sums, np.argsort(outputs))]


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    before, after = zip(*padding)
    return [*before, *after]


def _pool_max(graph: Graph, images: Value, **params) -> list[Value]:
    pooled, _ = _pool(graph, "MaxPool", images, **params)
    return [pooled]


def _pool_sum(graph: Graph, images: Value, **params) -> list[Value]:
    means, window = _pool(graph, "AveragePool", images, count_include_pad=1, **params)
    return [graph.apply("Mul", means, np.array(np.prod(window), np.float32), shape=means.shape)]


def _pool(
    graph: Graph,
    operation: str,
    images: Value,
    *,
    shapes,
    window_dimensions,
    window_strides,
    padding,
    base_dilation,
    window_dilation,
    **attributes,
) -> tuple[Value, Sequence[int]]:
    """Pooling of [B, H, W, K], and the sides of its window."""
    outer = {*window_dimensions[:1], *window_dimensions[3:], *window_strides[:1], *window_strides[3:]}
    outer |= {*base_dilation, *window_dilation}
    if len(window_dimensions) != 4 or outer != {1} or any(padding[0] + padding[3]):
        raise UnsupportedError("the primitive 'reduce_window' over other than rows and columns has no form in ONNX.")
    to_onnx, back, window = (0, 3, 1, 2), (0, 2, 3, 1), window_dimensions[1:3]
    pooled = graph.apply(
        operation,
        graph.transpose(images, to_onnx),
        shape=[shapes[0][axis] for axis in to_onnx],
        kernel_shape=window,
        strides=window_strides[1:3],
        pads=_pads(padding[1:3]),
        **attributes,
    )
    return graph.transpose(pooled, back), window


def _dot_general(graph: Graph, lhs: Value, rhs: Value, *, shapes, dimension_numbers, **params) -> list[Value]:
    """Both sides as matrices (batch dimensions, rows, columns); a dense layer as it is."""
    (lhs_summed, rhs_summed), (lhs_batch, rhs_batch) = dimension_numbers
    if not lhs_batch and len(rhs.shape) == 2 and tuple(rhs_summed) == (0,) and lhs_summed == (len(lhs.shape) - 1,):
        return [graph.apply("MatMul", lhs, rhs, shape=shapes[0])]
    lhs_free = [axis for axis in range(len(lhs.shape)) if axis not in (*lhs_batch, *lhs_summed)]
    rhs_free = [axis for axis in range(len(rhs.shape)) if axis not in (*rhs_batch, *rhs_summed)]
    batch = [lhs.shape[axis] for axis in lhs_batch]
    left = _matrix(graph, lhs, lhs_batch, lhs_free, lhs_summed)
    right = _matrix(graph, rhs, rhs_batch, rhs_summed, rhs_free)
    product = graph.apply("MatMul", left, right, shape=[*batch, left.shape[-2], right.shape[-1]])
    return [graph.reshape(product, shapes[0])]


def _matrix(graph: Graph, value: Value, batch: Sequence[int], rows: Sequence[int], columns: Sequence[int]) -> Value:
    ordered = graph.transpose(value, [*batch, *rows, *columns])
    sizes = [_product([value.shape[axis] for axis in axes]) for axes in (rows, columns)]
    return graph.reshape(ordered, [*ordered.shape[: len(batch)], *sizes])


def _product(sizes):
    total = 1
    for size in sizes:
        total = size * total
    return total


OPERATIONS = {
    "conv_general_dilated": _convolve,
    "dot_general": _dot_general,
    "reduce_window_max": _pool_max,
    "reduce_window_sum": _pool_sum,
}
