"""The conversion to ONNX: each operation as onnxruntime computes it against JAX, and what is refused by name."""

import functools

import jax
from jax import core, export, lax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.export import onnx_file
from minmax_jax.export.onnx_conversion import interpreter

_IMAGES = "b, 6, 8, 4"
_CONSTANT = np.random.default_rng(1).normal(size=(6, 8, 4)).astype(np.float32)


def _trace(f, shape):
    return jax.jit(f).trace(jax.ShapeDtypeStruct(export.symbolic_shape(shape), np.float32)).jaxpr


def _convert(f, shape=_IMAGES, *, names=("result",)):
    return interpreter.convert(_trace(f, shape), input_name=onnx_file.INPUT, output_names=names, metadata={"a": "b"})


def _compare(tmp_path, f, shape=_IMAGES):
    """The model, after results for one and for three images were the same."""
    model = _convert(f, shape)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    run = onnx_file.read(tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    for batch in (1, 3):
        sizes = [batch if word == "b" else int(word) for word in shape.split(", ")]
        images = rng.normal(size=sizes).astype(np.float32)
        (result,) = run(images).values()
        expected = np.asarray(jax.jit(f)(images))
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    return model


def _kernel(*shape):
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def _convolve(images, *, groups=1, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    return lax.conv_general_dilated(
        images,
        _kernel(3, 2, 4 // groups, 8),
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _pool(images, initial, reduce, window, strides, padding):
    sides = ((0, 0), padding, padding, (0, 0))
    return lax.reduce_window(images, initial, reduce, (1, *window, 1), (1, *strides, 1), sides)


_OPERATIONS = {
    "unary": lambda x: (
        jnp.exp(-jnp.abs(x)) + jnp.log(x * x + 1) + jnp.tanh(x) + jnp.floor(x) - jnp.ceil(x) + jnp.sign(x)
    ),
    "roots": lambda x: jnp.sqrt(jnp.square(x)) + lax.rsqrt(jnp.abs(x) + 1) + jnp.log1p(jnp.abs(x)),
    "powers": lambda x: x**3 + (jnp.abs(x) + 0.1) ** jnp.clip(x, -1, 1),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "error function": lambda x: lax.erf(x) / (2 + jax.nn.sigmoid(x)),
    "clip": lambda x: jnp.clip(x, -0.5, 0.25) - jnp.minimum(x, 0.1) + lax.clamp(-1.0, x, 1.0),
    "comparisons": lambda x: jnp.where((x > 0) & ~(x >= 1) | (x < -1) | (x <= -2) | (x != x), x, 3 * x),
    "equality": lambda x: (jnp.floor(x) == 1).astype(jnp.float32) + jnp.isnan(x),
    "whole numbers": lambda x: x.astype(jnp.int32).sum(axis=2).astype(jnp.float32),
    "softmax": lambda x: jax.nn.softmax(x) * jax.nn.log_softmax(x, axis=1),
    "constants": lambda x: x * jnp.sum(_CONSTANT**2, axis=(0, 1)) + jnp.asarray(_CONSTANT) * 2 + jnp.arange(4.0),
    "broadcast": lambda x: jnp.broadcast_to(x[:, None, :, 2:3], (x.shape[0], 2, 6, 5, 4)),
    "constant of the batch": lambda x: jnp.concatenate([jnp.broadcast_to(_CONSTANT[None], x.shape), x], axis=1),
    "constant result": lambda x: jnp.zeros(x.shape[:2]) + 1,
    "reshape": lambda x: x.reshape(x.shape[0], 48, 4).swapaxes(1, 2)[:, None],
    "reshape of the batch": lambda x: x.reshape(-1, 4).T,
    "stack": lambda x: jnp.stack([x, 2 * x], axis=1)[:, 1],
    "stack of constants": lambda x: jnp.stack([x, jnp.broadcast_to(_CONSTANT[None], x.shape)]),
    "parts": lambda x: sum(weight * part for weight, part in enumerate(jnp.moveaxis(x, 2, 0), 1)),
    "parts along the last": lambda x: jnp.stack(jnp.unstack(x, axis=3)[::-1], axis=1),
    "equal values": lambda x: lax.top_k(jnp.floor(x.reshape(-1, 4, 48)), 40)[1].astype(jnp.float32),
    "flip": lambda x: jnp.flip(x, (1, 2)) + jnp.flip(x, ()) - jnp.flip(x[..., :2], -1).sum(-1, keepdims=True),
    "slices": lambda x: lax.slice(x, (0, 1, 3, 0), (x.shape[0], 5, 8, 4), (1, 2, 1, 3)),
    "one place": lambda x: x[:, 2, -1],
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=7),
    "reflection": lambda x: jnp.pad(x, ((0, 0), (2, 3), (1, 0), (0, 0)), mode="reflect"),
    "reductions": lambda x: x.sum((1, 3)) + x.max((1, 3)) - x.min(axis=(1, 3)) * x.mean(axis=(1, 3)),
    "any": lambda x: jnp.any(x > 2, axis=(2, 3)).astype(jnp.float32),
    "argmax": lambda x: jnp.argmax(x, axis=-1).astype(jnp.float32),
    "top_k": lambda x: sum(found.astype(jnp.float32) for found in lax.top_k(x.reshape(-1, 4, 48), 5)),
    "sort": lambda x: jnp.sort(x, axis=2),
    "quantile": lambda x: jnp.quantile(x, jnp.array([0.05, 0.5, 0.95]), axis=(1, 2, 3), keepdims=True),
    "gather": lambda x: x[:, np.array([[0, 3], [5, 3]])],
    "gather of the last": lambda x: jnp.take(x, np.array([3, 0, 2]), axis=-1),
    "gather at a computed place": lambda x: x[:, jnp.argmax(x.sum((0, 1, 2)))],
    "dense": lambda x: x @ _kernel(4, 5),
    "product of the rows": lambda x: jnp.einsum("oh,bhwk->bowk", _kernel(9, 6), x),
    "product of images": lambda x: jnp.einsum("bhwk,bgwk->bhg", x, jnp.tanh(x)),
    "product of batches": lambda x: jnp.einsum("bhwk,bhvk->bhwv", x, x),
    "convolution": _convolve,
    "strided convolution": functools.partial(_convolve, strides=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2)),
    "grouped convolution": functools.partial(_convolve, groups=4),
    "max pool": lambda x: _pool(x, -np.inf, lax.max, (3, 2), (2, 1), (1, 0)),
    "sum pool": lambda x: _pool(x, 0.0, lax.add, (2, 2), (2, 2), (1, 1)),
    "loop": lambda x: lax.map(lambda row: row * row.max(), jnp.stack([x, 1 - x])).sum(0),
    "reversed loop": lambda x: lax.scan(lambda c, row: (c / 2 + row, c), x, jnp.stack([x, -x, 2 * x]), reverse=True)[1],
    "carried by a loop": lambda x: lax.scan(lambda c, row: (c + row, None), x, jnp.arange(3.0))[0],
    "custom derivative": lambda x: jax.nn.relu(x) + jax.checkpoint(lax.stop_gradient)(x),
}


@pytest.mark.parametrize("name", _OPERATIONS)
def test_operations_say_what_jax_says(tmp_path, name):
    _compare(tmp_path, _OPERATIONS[name])


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (jnp.sin, "'sin'"),
        (lambda x: lax.while_loop(lambda y: y.sum() > 0, lambda y: y - 1, x), "'while'"),
        (lambda x: lax.select_n((x * 2).astype(jnp.int32), x, -x, x), "'select_n' with 3"),
        (lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))), "'pad' with interior"),
        (lambda x: lax.sort((x, -x))[1], "'sort' of several"),
        (lambda x: x[:, jnp.argmax(x.sum((0, 1, 2))), jnp.argmax(-x.sum((0, 1, 2)))], "'gather' at computed places"),
        (lambda x: x[:, np.array([0, 1]), np.array([2, 3])], "'gather' along several"),
        (lambda x: jnp.take(x, np.array([9]), axis=1, mode="clip"), "'gather' out of bounds"),
        (
            lambda x: lax.conv_transpose(
                x, _kernel(3, 3, 4, 2), (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            "'conv_general_dilated' of a transposed",
        ),
        (lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 1, 2), (1, 1, 1, 1), "VALID"), "'reduce_window' over"),
    ],
)
def test_what_has_no_form_in_onnx_is_named(f, name):
    with pytest.raises(UserError, match=name):
        _convert(f)


_FREE = "b, h, w, 4"
_ON_FREE_SIDES = {
    "number of images as a value": lambda x: x / x.mean() + lax.iota(jnp.float32, x.shape[0])[:, None, None, None],
    "twice the images": lambda x: jnp.broadcast_to(x[:1, 0], (2 * x.shape[0], *x.shape[2:])),
    "several free dimensions": lambda x: (x[:, None] * x[None]).reshape(x.shape[0], x.shape[0], 2, -1),
    "rounded sides": lambda x: x[:, : x.shape[1] // 2, : (x.shape[2] + 3) // 4 * 4 - x.shape[2] % 5],
    "negative quotients": lambda x: x[:, : -((1 - 3 * x.shape[1]) // 5)],
    "powers": lambda x: x.reshape(x.shape[0], -1) / (x.shape[1] ** 2 * 3),
    "max_dim and min_dim": lambda x: x[:, : core.min_dim(x.shape[1], 5), : core.max_dim(x.shape[2] - 4, 2)],
    "reversed, joined": lambda x: jnp.concatenate([x[:, ::-1], x[:, 1:], x[:, -1:]], axis=1),
    "places": lambda x: jnp.take(x, jnp.abs(jnp.arange(x.shape[1] + 2) - 2), axis=1, mode="clip"),
    "places beyond the ends": lambda x: jnp.take(x, jnp.arange(x.shape[2]) * 2 - 1, axis=2, mode="clip"),
    "remainder": lambda x: x * lax.rem(jnp.arange(x.shape[2]) - 2, 3)[:, None],
    "sort": lambda x: jnp.sort(x.reshape(x.shape[0], -1, 4), axis=1),
    "quantile": lambda x: jnp.quantile(x, jnp.array([0.05, 0.95]), axis=(1, 2, 3)),
    "strides": functools.partial(_convolve, strides=(2, 1), padding=((1, 1), (0, 1))),
    "pool": lambda x: _pool(x, -np.inf, lax.max, (3, 3), (2, 2), (1, 1)),
    "reductions": lambda x: x.mean((1, 2)) + x.max((1, 2)),
    "product": lambda x: jnp.einsum("bhwk,bhvk->bhwv", x, x),
}


@pytest.mark.parametrize("name", _ON_FREE_SIDES)
def test_operations_on_free_sides_say_what_jax_says(tmp_path, name):
    f = _ON_FREE_SIDES[name]
    model = _convert(f, _FREE)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in shape] == ["batch", "height", "width", 4]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    run, rng = onnx_file.read(tmp_path / "model.onnx"), np.random.default_rng(0)
    for sizes in ((1, 6, 8, 4), (3, 7, 5, 4), (2, 16, 9, 4)):
        images = rng.normal(size=sizes).astype(np.float32)
        expected = np.asarray(f(images))
        (result,) = run(images).values()
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_places_that_may_be_out_of_bounds_are_refused():
    with pytest.raises(UserError, match="'gather' with mode .* at computed places"):
        _convert(lambda x: jnp.take(x, jnp.arange(x.shape[1]) + 1, axis=1, mode="fill"), _FREE)


def test_a_fixed_number_of_images(tmp_path):
    def f(x):
        return jnp.broadcast_to(lax.dynamic_slice(x, (0, 2, 9, -1), (2, 3, 5, 4)).max((1, 2)), (3, 2, 4))

    model = _compare(tmp_path, f, "2, 6, 8, 4")
    assert [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim] == [2, 6, 8, 4]
    with pytest.raises(UserError, match="'dynamic_slice' at computed places"):
        _convert(lambda x: lax.dynamic_slice_in_dim(x, x.sum().astype(jnp.int32), 3, 1), "2, 6, 8, 4")


def test_what_other_programs_look_for():
    """Names of nodes, sides of windows, biases as vectors, ReLUs, and results that have the outputs' names alone."""

    def f(x):
        x = jax.nn.relu(_pool(_convolve(x) + _kernel(1, 1, 1, 8), -np.inf, lax.max, (3, 2), (2, 1), (1, 0)))
        return x @ _kernel(8, 5) + _kernel(1, 1, 1, 5), jnp.maximum(x, 6)

    graph = _convert(f, names=("first", "second")).graph
    names = [node.name for node in graph.node]
    assert all(names) and len(set(names)) == len(names)
    windows = {
        node.op_type: list(attribute.ints)
        for node in graph.node
        for attribute in node.attribute
        if attribute.name == "kernel_shape"
    }
    assert windows == {"Conv": [3, 2], "MaxPool": [3, 2]}
    constants = {constant.name: list(constant.dims) for constant in graph.initializer}
    added = [
        [constants[name] for name in node.input if name in constants] for node in graph.node if node.op_type == "Add"
    ]
    assert added == [[[8]], [[5]]]
    operations = [node.op_type for node in graph.node]
    assert operations.count("Relu") == operations.count("Max") == 1 and "Identity" not in operations
    assert {output for node in graph.node for output in node.output} >= {"first", "second"}


def test_one_result_under_two_names_and_the_input_as_a_result(tmp_path):
    def f(x):
        y = x + 1
        return y, y, x

    (tmp_path / "model.onnx").write_bytes(_convert(f, names=("a", "b", "c")).SerializeToString())
    images = np.ones((2, 6, 8, 4), np.float32)
    results = onnx_file.read(tmp_path / "model.onnx")(images)
    assert list(results) == ["a", "b", "c"]
    for name, value in {"a": 2, "b": 2, "c": 1}.items():
        np.testing.assert_array_equal(results[name], value * images)


def test_operations_share_no_constant_with_others():
    """Conversion to float16 keeps some operations, such as Max, in float32, with their constants."""
    graph = _convert(lambda x: jnp.maximum(x, 0.5) * 0.5 + x * 0.5).graph
    readers = {node.op_type: set(node.input) for node in graph.node}
    assert readers["Max"].isdisjoint(readers["Mul"] - {"images"} - {node.output[0] for node in graph.node})
    assert len(graph.initializer) == 2


def test_what_is_in_a_file():
    """Constants once, nothing that is not read, names of inputs and outputs, a free batch, metadata."""

    def f(images):
        weights = jnp.asarray(_CONSTANT)
        unused = jnp.exp(images)
        del unused
        return images * weights, (images - 1) * np.array(_CONSTANT)

    model = _convert(f, names=("first", "second"))
    graph = model.graph
    assert len(graph.initializer) == 2 and "Exp" not in {node.op_type for node in graph.node}
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "first", "second"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [(item.key, item.value) for item in model.metadata_props] == [("a", "b")]
    assert model.opset_import[0].version == 13
