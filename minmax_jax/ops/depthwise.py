"""Depthwise convolution: each channel has a kernel of its own.

XLA has no fast form of a grouped convolution, or of its gradients, for CPUs. There kernels in C compute them
(cpu/depthwise.c). Where they cannot be built, the output is a sum of shifted products, one for each tap of the kernel,
and so are both gradients. Other platforms keep XLA's form.
"""

import functools
import itertools

import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax.ops import platforms
from minmax_jax.ops.cpu import native


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(images: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """Convolution of each channel by itself, with symmetric padding: [B, ceil(H / stride), ceil(W / stride), K].

    Args:
        images: [B, H, W, K].
        kernel: [k, k, 1, K], k odd.
        stride: of rows and columns.
        dilation: distance of neighbouring taps.
    """
    statics = dict(stride=stride, dilation=dilation)

    def on_cpu(images, kernel):
        return (native.depthwise if _is_native(images, kernel) else _shifted)(images, kernel, **statics)

    return platforms.choose(images, kernel, cpu=on_cpu, default=functools.partial(_grouped, **statics))


def _is_native(images, kernel) -> bool:
    return images.dtype == kernel.dtype == jnp.float32 and min(images.shape) > 0 and native.is_available()


def _forward(images, kernel, stride, dilation):
    return depthwise_conv(images, kernel, stride, dilation), (images, kernel)


def _backward(stride, dilation, kept, cotangents):
    statics = dict(stride=stride, dilation=dilation)

    def on_cpu(images, kernel, cotangents):
        if _is_native(images, kernel):
            size, window = images.shape[1:3], len(kernel)
            return (
                native.depthwise_input_gradient(cotangents, kernel, size=size, **statics),
                native.depthwise_kernel_gradient(images, cotangents, window=window, **statics),
            )
        return (
            _shifted_input_gradient(images, kernel, cotangents, **statics),
            _shifted_kernel_gradient(images, kernel, cotangents, **statics),
        )

    def elsewhere(images, kernel, cotangents):
        return jax.vjp(functools.partial(_grouped, **statics), images, kernel)[1](cotangents)

    return platforms.choose(*kept, cotangents, cpu=on_cpu, default=elsewhere)


depthwise_conv.defvjp(_forward, _backward)


def _grouped(images, kernel, *, stride, dilation):
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        [(dilation * (kernel.shape[0] // 2),) * 2] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[-1],
    )


def _views(images: jax.Array, side: int, *, stride: int, dilation: int, size: tuple[int, int]):
    """For each tap of the kernel, the pixels [B, h, w, K] that it meets."""
    padding = dilation * (side // 2)
    images = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for row, column in itertools.product(range(0, side * dilation, dilation), repeat=2):
        rows = slice(row, row + stride * (size[0] - 1) + 1, stride)
        yield images[:, rows, column : column + stride * (size[1] - 1) + 1 : stride]


def _shifted(images, kernel, *, stride, dilation):
    side, size = kernel.shape[0], tuple(-(-length // stride) for length in images.shape[1:3])
    views = _views(images, side, stride=stride, dilation=dilation, size=size)
    return sum(view * weights for view, weights in zip(views, kernel.reshape(side * side, -1), strict=True))


def _shifted_input_gradient(images, kernel, cotangents, *, stride, dilation):
    # Zeros between the cotangents, as many as there are pixels: what follows is a convolution of stride 1.
    ends = (length - stride * (short - 1) - 1 for length, short in zip(images.shape[1:3], cotangents.shape[1:3]))
    zero = jnp.zeros((), cotangents.dtype)
    spread = lax.pad(cotangents, zero, ((0, 0, 0), *((0, end, stride - 1) for end in ends), (0, 0, 0)))
    return _shifted(spread, jnp.flip(kernel, (0, 1)), stride=1, dilation=dilation)


def _shifted_kernel_gradient(images, kernel, cotangents, *, stride, dilation):
    views = _views(images, kernel.shape[0], stride=stride, dilation=dilation, size=cotangents.shape[1:3])
    return jnp.stack([jnp.sum(view * cotangents, (0, 1, 2)) for view in views]).reshape(kernel.shape)
