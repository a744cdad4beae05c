"""The depthwise convolution, compared with XLA's grouped one."""

import functools

import jax
from jax import export, lax
import numpy as np
import pytest

from minmax_jax.ops import depthwise, platforms
from minmax_jax.ops.cpu import native


def _reference(images, kernel, stride, dilation):
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride,) * 2,
        [(dilation * (len(kernel) // 2),) * 2] * 2,
        rhs_dilation=(dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[-1],
    )


@pytest.mark.parametrize("size", [(9, 12), (8, 7), (1, 1), (2, 5)])
@pytest.mark.parametrize("side, stride, dilation", [(3, 1, 1), (5, 1, 1), (3, 2, 1), (5, 2, 1), (5, 1, 2), (3, 1, 4)])
@pytest.mark.parametrize("channels, is_native", [(5, True), (40, True), (5, False)])
def test_output_and_gradients(monkeypatch, size, side, stride, dilation, channels, is_native):
    if not is_native:
        monkeypatch.setattr(depthwise, "_is_native", lambda *arrays: False)
    elif not native.is_available():
        pytest.skip("no C compiler")
    rng = np.random.default_rng(0)
    shapes = (2, *size, channels), (side, side, 1, channels)
    images, kernel = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    statics = dict(stride=stride, dilation=dilation)
    shape = jax.eval_shape(functools.partial(_reference, **statics), images, kernel).shape
    cotangents = rng.normal(size=shape).astype(np.float32)

    @jax.jit
    def compute(images, kernel, cotangents):
        """Both forms and their gradients in one program, which takes less time to compile than four."""
        outputs = []
        for form in (_reference, depthwise.depthwise_conv):
            output, pull = jax.vjp(lambda x, k: form(x, k, stride, dilation), images, kernel)
            outputs.append((output, *pull(cotangents)))
        return outputs

    expected, found = compute(images, kernel, cotangents)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=2e-5)


def test_by_hand():
    """A 3x3 kernel of ones sums what lies within its window; zero outside of the image."""
    images = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    found = depthwise.depthwise_conv(images, np.ones((3, 3, 1, 1), np.float32), 2, 1)
    np.testing.assert_array_equal(found[0, :, :, 0], [[0 + 1 + 4 + 5, 1 + 2 + 3 + 5 + 6 + 7], [51, 90]])


def test_other_platforms_keep_the_grouped_form():
    images, kernel = np.ones((1, 8, 8, 3), np.float32), np.ones((3, 3, 1, 3), np.float32)
    with platforms.portable():
        text = jax.jit(lambda x, k: depthwise.depthwise_conv(x, k, 1, 1)).lower(images, kernel).as_text()
    assert "feature_group_count = 3" in text
    here = jax.jit(lambda x, k: depthwise.depthwise_conv(x, k, 1, 1)).lower(images, kernel).as_text()
    assert "convolution" not in here


def test_the_batch_may_be_free_in_programs_for_export():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 4)).astype(np.float32)
    images = np.random.default_rng(1).normal(size=(3, 8, 6, 4)).astype(np.float32)
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b, 8, 6, 4"), np.float32)
    with platforms.portable():
        program = export.export(jax.jit(lambda x: depthwise.depthwise_conv(x, kernel, 2, 1)))(shape)
    for batch in (1, 3):
        expected = _reference(images[:batch], kernel, 2, 1)
        np.testing.assert_allclose(program.call(images[:batch]), expected, rtol=1e-5, atol=1e-5)
