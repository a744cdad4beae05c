"""Convolution, max pool, resizing and device means against XLA's own gradients and NumPy."""

import contextlib
import functools

import flax.linen as nn
import jax
from jax import export, lax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.ops import conv, device_means, free_sizes, fused_conv, max_pool, platforms, resize
from minmax_jax.ops.cpu import native

CONVOLUTIONS = [  # height, width, window, stride, padding, channels of the images and of the output
    (8, 8, 3, 1, 1, 3, 5),
    (9, 7, 3, 2, 1, 17, 16),
    (10, 13, 3, 2, 1, 8, 33),
    (12, 9, 7, 2, 3, 3, 24),
    (6, 11, 1, 1, 0, 16, 40),
    (7, 10, 1, 2, 0, 9, 64),
    (5, 8, 3, 1, 0, 20, 7),
    (2, 2, 3, 1, 1, 4, 20),
    (1, 4, 3, 2, 1, 4, 20),
    (3, 40, 5, 3, 2, 2, 48),
    (7, 8, 3, 1, 2, 5, 16),
    (8, 8, 2, 3, 1, 4, 16),
    (8, 9, 1, 1, 1, 4, 16),
    (7, 6, 3, 1, 1, 10, 70),  # several blocks of windows, and of channels the last is not full
    (13, 5, 3, 2, 1, 24, 100),
    (9, 12, 3, 1, 1, 24, 48),
    (19, 23, 3, 2, 1, 140, 150),  # several blocks of rows and units of channels of the kernel's gradient
    (5, 140, 1, 1, 0, 33, 130),
]


def _xla(images, kernel, stride, padding):
    sides = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(images, kernel, (stride, stride), sides, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _ours(images, kernel, stride, padding):
    sides = ((padding, padding), (padding, padding))
    return conv.conv_general_dilated(
        images, kernel, (stride, stride), sides, dimension_numbers=lax.ConvDimensionNumbers(*_NHWC)
    )


_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def _normal(shape, seed=0):
    """Random numbers of NumPy: those of JAX are a program to compile for each shape."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["native", "without conv.c"])
def has_native(request, monkeypatch):
    if request.param:
        assert native.is_available()  # gcc is there wherever these tests run
    else:
        monkeypatch.setattr(native, "is_available", lambda: False)
    return request.param


@pytest.mark.parametrize("height, width, window, stride, padding, channels, outputs", CONVOLUTIONS)
def test_conv_and_its_gradients_equal_xla(height, width, window, stride, padding, channels, outputs, has_native):
    images, kernel = _normal((2, height, width, channels)), _normal((window, window, channels, outputs), seed=1)
    cotangents = _normal(jax.eval_shape(lambda: _xla(images, kernel, stride, padding)).shape, seed=2)

    @jax.jit
    def compute(images, kernel, cotangents):
        """Both in one program, which takes less time to compile than two."""
        outputs = []
        for convolve in (_ours, _xla):
            output, vjp = jax.vjp(lambda x, k: convolve(x, k, stride, padding), images, kernel)
            outputs.append((output, *vjp(cotangents)))
        return outputs

    for ours, xla in zip(*compute(images, kernel, cotangents)):
        np.testing.assert_allclose(ours, xla, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "size, window, strides, padding",
    [
        ((1, 4), (1, 1), (4, 4), ((0, 0), (30, 0))),  # the last window ends before the image
        ((5, 6), (3, 3), (2, 2), ((40, 1), (2, 40))),
        ((13, 13), (3, 3), (2, 2), ((-1, 0), (-1, 0))),
        ((12, 15), (3, 2), (3, 2), ((0, 4), (-1, -2))),
        ((12, 15), (3, 3), (1, 1), ((-2, 1), (1, -3))),
        ((4, 4), (3, 3), (2, 2), ((-1, 2), (2, -1))),
    ],
)
def test_uneven_and_negative_padding(size, window, strides, padding, has_native):
    images, kernel = _normal((2, *size, 5)), _normal((*window, 5, 7), seed=1)

    def compute(convolve):
        convolve = functools.partial(convolve, window_strides=strides, padding=padding)
        output, vjp = jax.vjp(
            functools.partial(convolve, dimension_numbers=lax.ConvDimensionNumbers(*_NHWC)), images, kernel
        )
        return output, *vjp(jnp.cos(jnp.arange(output.size, dtype=jnp.float32)).reshape(output.shape))

    both = jax.jit(lambda: [compute(form) for form in (conv.conv_general_dilated, lax.conv_general_dilated)])
    for ours, xla in zip(*both()):
        np.testing.assert_allclose(ours, xla, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "height, width, top, left, channels, outputs",
    [
        (8, 8, 1, 1, 16, 32),
        (6, 7, 1, 1, 64, 16),
        (9, 14, 0, 2, 24, 48),  # a slice of 16 channels is left
        (41, 38, 1, 1, 96, 96),  # several groups of tiles
        (7, 5, 3, 0, 40, 24),  # fewer channels than two vectors
        (10, 9, 1, 1, 17, 37),  # channels that fill no vector
        (13, 36, 1, 1, 128, 160),
    ],
)
def test_transformed_conv_equals_xla_in_double_precision(height, width, top, left, channels, outputs):
    """Errors, as a share of a result's standard deviation, stay near those of a sum of products in float32."""
    assert native.is_available() and native.can_use_winograd(channels, outputs)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, height, width, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, channels, outputs)).astype(np.float32)
    size = (height + top - 1, width + left - 1)  # one more row and column of zeros below and to the right
    cotangents = rng.normal(size=(2, *size, outputs)).astype(np.float32)
    with jax.enable_x64(True):
        doubles = [jnp.asarray(array, "float64") for array in (images, kernel, cotangents)]
        sides = ((top, 1), (left, 1))
        convolve = functools.partial(lax.conv_general_dilated, window_strides=(1, 1), padding=sides)

        @jax.jit
        def compute(images, kernel, cotangents):
            output, vjp = jax.vjp(
                functools.partial(convolve, dimension_numbers=("NHWC", "HWIO", "NHWC")), images, kernel
            )
            return output, *vjp(cotangents)

        expected = [np.asarray(array) for array in compute(*doubles)]
    actual = [
        native.conv(images, kernel, stride=1, top=top, left=left, size=size, winograd=True),
        conv.input_gradient(images, kernel, cotangents, strides=(1, 1), padding=sides),
        native.winograd_kernel_gradient(images, cotangents, top=top, left=left),
    ]
    for ours, exact in zip(actual, expected):
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-5 * np.std(exact))


@pytest.mark.parametrize("shape", [(0, 8, 8, 16), (2, 8, 0, 16)])
def test_a_conv_of_nothing_has_no_gradient(shape):
    images, kernel = jnp.ones(shape), jnp.ones((3, 3, 16, 16))
    assert native.is_available()
    output = native.conv(images, kernel, stride=1, top=1, left=1, size=shape[1:3], winograd=True)
    assert output.shape == shape
    gradient = native.winograd_kernel_gradient(images, jnp.ones(shape), top=1, left=1)
    np.testing.assert_array_equal(gradient, np.zeros(kernel.shape))
    gradient = native.conv_kernel_gradient(images, jnp.ones(shape), stride=1, top=1, left=1, window=(3, 3))
    np.testing.assert_array_equal(gradient, np.zeros(kernel.shape))


@pytest.mark.parametrize(
    "channels, outputs, able",
    [(64, 64, True), (16, 48, True), (24, 24, True), (20, 17, True), (3, 64, False), (64, 15, False)],
)
def test_which_channels_are_worth_transforming(channels, outputs, able):
    assert native.can_use_winograd(channels, outputs) == able


def test_conv_gradient_inside_a_loop(has_native):
    images = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def loss(kernel, convolve):
        return jnp.sum(convolve(images, kernel, 2, 1) ** 2)

    def body(_, total):
        return total + jax.grad(loss)(kernel, _ours)

    summed = jax.jit(lambda: lax.fori_loop(0, 3, body, jnp.zeros_like(kernel)))()
    np.testing.assert_allclose(summed, 3 * jax.grad(loss)(kernel, _xla), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "side, channels, forms, without",
    [
        (8, 2, (0, 0, 2, 0), (1, 9, 0, 0)),
        (5, 2, (0, 0, 2, 0), (0, 18, 0, 0)),
        (8, 16, (0, 0, 0, 2), (1, 9, 0, 0)),
        (5, 16, (0, 0, 2, 0), (0, 18, 0, 0)),
    ],
)
def test_conv_takes_the_fast_forms_on_a_cpu(side, channels, forms, without, has_native):
    """Our own code, in tiles of 4x4 where these are filled; without it, products for gradients and small maps."""
    images, kernel = jnp.ones((1, side, side, channels)), jnp.ones((3, 3, channels, channels))
    gradient = jax.jit(jax.grad(lambda k: jnp.sum(_ours(images, k, 1, 1) ** 2)))
    lowered = gradient.lower(kernel).as_text()
    calls = ("stablehlo.custom_call @minmax_conv", "stablehlo.custom_call @minmax_winograd")
    names = ("stablehlo.convolution", "stablehlo.dot_general", *calls)
    assert tuple(lowered.count(name) for name in names) == (forms if has_native else without)


@pytest.mark.parametrize("with_residual, relu", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("side, window, stride, outputs", [(9, 3, 1, 48), (9, 3, 2, 21), (5, 3, 1, 16), (9, 1, 1, 70)])
def test_what_follows_a_conv_and_its_gradients(side, window, stride, outputs, with_residual, relu, has_native):
    """In tiles of 4x4, by rows, by windows, by pixels; NumPy finishes what XLA convolves."""
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, side, side, 16)), rng.normal(size=(window, window, 16, outputs))
    size = -(-side // stride)
    factor, shift, residual = (rng.normal(size=s) for s in (outputs, outputs, (2, size, size, outputs)))
    arrays = [a.astype(np.float32) for a in (images, kernel, factor, shift, residual)]
    residual = arrays[4] if with_residual else None

    def ours(images, kernel, factor, shift, residual):
        epilogue = native.Epilogue(factor, shift, residual, relu)
        form = functools.partial(fused_conv.conv_general_dilated, epilogue=epilogue)
        module = nn.Conv(
            outputs, (window, window), stride, [(window // 2,) * 2] * 2, use_bias=False, conv_general_dilated=form
        )
        return module.apply({"params": {"kernel": kernel}}, images)

    @jax.jit
    def xla(images, kernel, cotangents):
        output, transpose = jax.vjp(lambda k: _xla(images, k, stride, window // 2), kernel)
        return output, *transpose(cotangents)

    with jax.enable_x64(True):
        sums = np.asarray(xla(images, kernel, np.ones((2, size, size, outputs)))[0])
    expected = sums * arrays[2] + arrays[3] + (arrays[4] if with_residual else 0)
    expected = np.maximum(expected, 0) if relu else expected

    @jax.jit
    def compute(*arrays):
        return ours(*arrays), jax.grad(lambda *a: jnp.sum(ours(*a)), (1, 2, 3))(*arrays)

    found, gradients = compute(*arrays[:4], residual)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    passed = (expected > 0) if relu else np.ones_like(expected)
    through, by_kernel = xla(arrays[0], arrays[1], (passed * arrays[2]).astype("f"))
    np.testing.assert_allclose(gradients[0], by_kernel, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gradients[1], np.sum(passed * through, (0, 1, 2)), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(gradients[2], np.sum(passed, (0, 1, 2)))


@pytest.mark.parametrize(
    "images, kernel", [((2, 9, 9, 16), (3, 3, 32, 8)), ((2, 9, 9, 16), (3, 3, 8, 8)), ((2, 9, 9, 4), (3, 3, 16, 8))]
)
def test_channels_that_do_not_fit_are_the_error_that_xla_raises(images, kernel, has_native):
    for form in (_ours, _xla):
        with pytest.raises((TypeError, ValueError), match="feature"):
            form(jnp.ones(images), jnp.ones(kernel), 1, 1)


def test_types_that_differ_are_the_error_that_xla_raises(has_native):
    for form in (_ours, _xla):
        with pytest.raises(TypeError, match="same dtype"):
            form(jnp.ones((2, 9, 9, 16)), jnp.ones((3, 3, 16, 16), jnp.bfloat16), 1, 1)


@pytest.mark.parametrize(
    "residual, dtype",
    [((1, 9, 9, 16), "float32"), ((2, 9, 9, 1), "float32"), ((16,), "float32"), ((2, 9, 9, 16), "bfloat16")],
)
def test_an_epilogue_that_broadcasts_is_applied_after_the_convolution(residual, dtype, has_native):
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 9, 9, 16)).astype("f"), rng.normal(size=(3, 3, 16, 16)).astype("f")
    added = jnp.asarray(rng.normal(size=residual), dtype)
    epilogue = native.Epilogue(jnp.full(1, 2.0), jnp.zeros(()), added, relu=True)
    strides, padding = (1, 1), ((1, 1), (1, 1))
    layout = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=1, precision=None)
    layout |= dict(lhs_dilation=None, rhs_dilation=None)
    found = jax.jit(
        lambda images, kernel: fused_conv.conv_general_dilated(
            images, kernel, strides, padding, epilogue=epilogue, **layout
        )
    )(images, kernel)
    expected = np.maximum(2 * np.asarray(_xla(images, kernel, 1, 1)) + np.asarray(added, "f"), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_nothing_in_nothing_out(has_native):
    assert _ours(jnp.ones((0, 9, 9, 16)), jnp.ones((3, 3, 16, 8)), 1, 1).shape == (0, 9, 9, 8)


def test_a_window_larger_than_the_map_is_refused():
    with pytest.raises(ValueError, match="window=5"):
        max_pool.relu_max_pool(jnp.ones((1, 2, 2, 3)), 5, 2, 1)


def test_what_follows_a_conv_keeps_what_is_not_a_number():
    images = jnp.full((1, 8, 8, 16), jnp.nan)
    epilogue = native.Epilogue(jnp.ones(16), jnp.zeros(16), relu=True)
    kernel, sides = jnp.ones((3, 3, 16, 16)), ((1, 1), (1, 1))
    assert np.all(np.isnan(conv.output(images, kernel, strides=(1, 1), padding=sides, epilogue=epilogue)))


def test_conv_of_double_precision_is_left_to_xla():
    with jax.enable_x64(True):
        images, kernel = (
            jax.random.normal(jax.random.key(0), shape, "float64") for shape in ((1, 8, 8, 3), (3, 3, 3, 2))
        )
        np.testing.assert_allclose(_ours(images, kernel, 1, 1), _xla(images, kernel, 1, 1), rtol=1e-14)


def test_conv_can_be_mapped():
    images = jax.random.normal(jax.random.key(0), (3, 2, 8, 7, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 5))
    actual = jax.vmap(lambda x: _ours(x, kernel, 1, 1))(images)
    np.testing.assert_allclose(actual, jnp.stack([_xla(x, kernel, 1, 1) for x in images]), rtol=1e-4, atol=1e-4)


def test_grouped_and_dilated_convolutions_are_left_to_xla():
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 4))
    options = dict(feature_group_count=2, rhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = lax.conv_general_dilated(images, kernel, (1, 1), "SAME", **options)
    np.testing.assert_array_equal(conv.conv_general_dilated(images, kernel, (1, 1), "SAME", **options), expected)


def test_max_pool_by_hand(has_native):
    features = (jnp.arange(16.0) - 6).reshape(1, 4, 4, 1)
    pool = functools.partial(max_pool.relu_max_pool, window=3, stride=2, padding=1)
    pooled, backward = jax.vjp(pool, features)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[0, 1], [7, 9]])
    expected = np.zeros((4, 4))
    expected[1, 3], expected[3, 1], expected[3, 3] = 2, 3, 4
    (gradient,) = backward(jnp.array([[1.0, 2], [3, 4]])[None, :, :, None])
    np.testing.assert_array_equal(gradient[0, :, :, 0], expected)


def test_max_pool_does_not_hide_what_is_not_a_number(has_native):
    features = jnp.ones((1, 4, 4, 20)).at[0, 3, 2, 17].set(jnp.nan).at[0, 3, 3, 17].set(5)
    expected = np.ones((2, 2, 20))
    expected[1, 1, 17] = np.nan
    np.testing.assert_array_equal(max_pool.relu_max_pool(features, 3, 2, 1)[0], expected)


@pytest.mark.parametrize("height, width, channels", [(8, 8, 16), (9, 7, 40), (12, 5, 3), (2, 3, 33)])
@pytest.mark.parametrize("window, stride, padding", [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 3, 2)])
def test_max_pool_and_gradient_equal_xla(has_native, height, width, channels, window, stride, padding):
    # Whole numbers, so that many maxima are equal: the first one has the gradient.
    features = np.round(2 * _normal((2, height, width, channels)))

    def xla(x):
        sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        pooled = lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), sides)
        return jax.nn.relu(pooled)

    def loss(x, pool):
        pooled = pool(x)
        return jnp.sum(pooled * jnp.arange(pooled.size).reshape(pooled.shape))

    @jax.jit
    def compute(x):
        return [
            jax.value_and_grad(loss)(x, pool)
            for pool in (xla, lambda x: max_pool.relu_max_pool(x, window, stride, padding))
        ]

    expected, actual = compute(features)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_interpolation_matrix_by_hand():
    np.testing.assert_allclose(resize.interpolation_matrix(2, 3), [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(resize.interpolation_matrix(3, 2), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(resize.interpolation_matrix(1, 3), [[1], [1], [1]])
    np.testing.assert_allclose(resize.interpolation_matrix(4, 1), [[1, 0, 0, 0]])


def test_features_lie_on_the_multiples_of_the_stride():
    def matrix(size_in, size_out):
        return resize.interpolation_matrix(size_in, size_out, alignment="features")

    np.testing.assert_allclose(matrix(2, 4), [[1, 0], [0.5, 0.5], [0, 1], [0, 1]])
    np.testing.assert_allclose(matrix(2, 6) @ [0, 3], [0, 1, 2, 3, 3, 3])
    np.testing.assert_allclose(matrix(1, 3), [[1], [1], [1]])
    np.testing.assert_allclose(matrix(3, 3), np.eye(3))
    # Of 5 pixels a stride of 2 makes 3 features, of 194 pixels one of 8 makes 25.
    np.testing.assert_allclose(matrix(3, 5) @ [0, 1, 2], [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(matrix(25, 194) @ np.arange(25), np.minimum(np.arange(194) / 8, 24))


def test_patches_lie_side_by_side():
    """Four pixels and two patches have their centres at 0.5 and 2.5; three and two at 0.25 and 1.75."""
    matrices = (resize.interpolation_matrix(2, size, alignment="patches") for size in (4, 3, 2))
    np.testing.assert_allclose(next(matrices), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(next(matrices), [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(next(matrices), np.eye(2))
    np.testing.assert_allclose(resize.interpolation_matrix(4, 2, alignment="patches") @ np.arange(4), [0.5, 2.5])


def test_features_are_not_shrunk():
    with pytest.raises(ValueError, match="only enlarges, not 4 features to 3 pixels; use 'corners'"):
        resize.resize_bilinear(jnp.ones((1, 4, 4, 1)), (4, 3), alignment="features")


@pytest.mark.parametrize("alignment", resize.ALIGNMENTS)
def test_rows_and_columns_are_resized_alike(alignment):
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    rows, columns = (resize.interpolation_matrix(*sides, alignment=alignment) for sides in ((3, 7), (4, 9)))
    expected = np.einsum("oh,bhwk,pw->bopk", rows, images, columns)
    actual = resize.resize_bilinear(images, (7, 9), alignment=alignment)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (3, 4), (11, 2), (1, 1)])
def test_resize_equals_numpy_interpolation(size):
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    rows, columns = (np.linspace(0, old - 1, new) if new > 1 else [0] for old, new in zip((4, 6), size))
    by_rows = np.apply_along_axis(lambda line: np.interp(rows, np.arange(4), line), 1, images)
    expected = np.apply_along_axis(lambda line: np.interp(columns, np.arange(6), line), 2, by_rows)
    np.testing.assert_allclose(resize.resize_bilinear(images, size), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "alignment, size", [("corners", (5, 7)), ("corners", (2, 13)), ("corners", (1, 1)), ("features", (17, 24))]
)
def test_resizing_for_a_gpu_equals_the_products(alignment, size):
    """What is compiled for GPUs reads neighbours instead, on the way back too."""
    rng = np.random.default_rng(0)
    images, cotangents = rng.normal(size=(2, 4, 6, 3)), rng.normal(size=(2, *size, 3))
    rows, columns = (resize.interpolation_matrix(*sides, alignment=alignment) for sides in zip((4, 6), size))
    with platforms.for_target("cuda"):
        resized = functools.partial(resize.resize_bilinear, size=size, alignment=alignment)
        assert "dot_general" not in str(jax.make_jaxpr(resized)(images))
        actual, backward = jax.vjp(resized, images.astype(np.float32))
        (gradient,) = backward(cotangents.astype(np.float32))
    terms = "oh,bhwk,pw->bopk", "oh,bopk,pw->bhwk"
    expected = [np.einsum(term, rows, given, columns) for term, given in zip(terms, (images, cotangents))]
    np.testing.assert_allclose(actual, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-6)


def test_resize_to_the_same_size_changes_nothing():
    images = jnp.ones((1, 3, 5, 2))
    assert resize.resize_bilinear(images, (3, 5)) is images


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_device_means_are_numpys_and_one_exchange_on_cpus(platform):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (4, 3, 2), "bias": (4, 2), "loss": (4,)}
    tree = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tree["kernel"] = tree["kernel"].astype(jnp.bfloat16)
    with platforms.for_target(platform) if platform != "cpu" else contextlib.nullcontext():
        means = jax.pmap(functools.partial(device_means.device_means, axis_name="x"), axis_name="x", out_axes=None)
        assert means.lower(tree).as_text().count("stablehlo.all_reduce") == (1 if platform == "cpu" else 3)
        found = means(tree)
    for name, array in tree.items():
        tolerance = 1e-2 if array.dtype == jnp.bfloat16 else 1e-6
        np.testing.assert_allclose(np.float64(found[name]), np.float64(array).mean(axis=0), tolerance, tolerance)
        assert found[name].dtype == array.dtype and found[name].shape == array.shape[1:]


def test_other_platforms_get_the_forms_of_xla():
    """The choice is made when a program is lowered: the one for a GPU holds no call of our own code."""
    images, kernel = jnp.ones((1, 16, 16, 16)), jnp.ones((3, 3, 16, 16))
    epilogue = native.Epilogue(jnp.ones(16), jnp.zeros(16), relu=True)

    def loss(images, kernel):
        features = max_pool.relu_max_pool(_ours(images, kernel, 1, 1), 3, 2, 1)
        module = nn.Conv(
            16,
            (3, 3),
            padding=[(1, 1)] * 2,
            use_bias=False,
            conv_general_dilated=functools.partial(fused_conv.conv_general_dilated, epilogue=epilogue),
        )
        return jnp.sum(module.apply({"params": {"kernel": kernel}}, features))

    names = ("minmax_conv", "minmax_winograd", "minmax_winograd_kernel_gradient")
    allowed = list(map(export.DisabledSafetyCheck.custom_call, names))

    def lower(function, platform):
        with platforms.for_target(platform):
            return export.export(jax.jit(function), platforms=[platform], disabled_checks=allowed)(images, kernel)

    for function in (loss, jax.grad(loss, (0, 1))):
        ours, gpus, tpus = (lower(function, platform).mlir_module() for platform in ("cpu", "cuda", "tpu"))
        assert "@minmax_" in ours
        for xlas in (gpus, tpus):
            assert "@minmax_" not in xlas and "stablehlo.convolution" in xlas
    assert "select_and_scatter" in tpus and "select_and_scatter" not in gpus  # of the max pool's gradient


# Sides that are known when a program runs only.


@pytest.mark.parametrize("alignment", resize.ALIGNMENTS)
def test_the_matrix_of_free_sides_is_that_of_known_ones(alignment):
    size_in, size_out = export.symbolic_shape("n, m")

    def create(x, y):
        return resize._free_matrix(x.shape[0], y.shape[0], alignment)

    shapes = (jax.ShapeDtypeStruct((size,), np.float32) for size in (size_in, size_out))
    program = export.export(jax.jit(create))(*shapes)
    larger = [(4, 64), (7, 50), (1, 9), (9, 9), (64, 128), (65, 2048), (3, 9)]
    for sides in larger if alignment == "features" else [*larger, (64, 32), (9, 1), (50, 7), (2080, 1040)]:
        matrix = program.call(*(np.zeros(side, np.float32) for side in sides))
        np.testing.assert_allclose(matrix, resize.interpolation_matrix(*sides, alignment=alignment), atol=2e-6)


@pytest.mark.parametrize("share", [0.09, 0.2, 0.25, 0.5, 0.001, 1 / 3])
def test_shares_of_free_numbers_are_rounded_as_by_python(share):
    counts = np.arange(5000, dtype=np.int32)
    expected = [round(share * count) for count in range(5000)]
    np.testing.assert_array_equal(free_sizes.round_share(jnp.asarray(counts), share), expected)


def test_shares_without_an_exact_form_are_refused():
    (side,) = export.symbolic_shape("h")
    assert free_sizes.cut_share(30, 0.7, name="s") == int(0.7 * 30) and str(free_sizes.cut_share(side, 0.75, name="s"))
    with pytest.raises(free_sizes.FreeSizeError, match="s=0.7 of a free side has no exact form; multiples of 1/64"):
        free_sizes.cut_share(side, 0.7, name="s")
    with pytest.raises(free_sizes.FreeSizeError, match="a share of 0.1234 of a free number of locations"):
        free_sizes.round_share(np.int32(5), 0.1234)
