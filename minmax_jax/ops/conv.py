"""A 2-D convolution that is fast on a CPU, with gradients that are also fast inside `lax` loops.

XLA's CPU backend compiles the two gradient convolutions, whose layouts are unusual, to naive loops inside the body of a
while loop or scan (jax issue 12868): up to fifty times slower than outside. The erasing loop differentiates inside its
body. On a CPU, kernels in C therefore compute everything: conv.c, and winograd.c for 3x3 convolutions of stride 1, most
of a trunk. Where they cannot be built, the gradients are written in forms that XLA compiles well: ordinary convolutions
for output and input, matrix products (conv_products.py) for the kernel and for small maps. Other platforms keep XLA's
convolutions and gradients.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax.ops import conv_products, platforms
from minmax_jax.ops.cpu import native

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: tuple[int, int],
    padding,
    *,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count: int = 1,
    precision=None,
    **kwargs,
) -> jax.Array:
    """Drop-in for `lax.conv_general_dilated`, to be passed to `flax.linen.Conv`.

    Plain convolutions (2-D, channels last, ungrouped, undilated, explicit padding, one type) get the gradients of this
    module; all others are passed to `lax` unchanged.

    Args:
        images: [B, H, W, K] inputs.
        kernel: [kh, kw, K, L] weights.
        window_strides: stride of the rows and of the columns.
        padding: ((top, bottom), (left, right)), or anything `lax` takes.
        lhs_dilation: as in `lax`.
        rhs_dilation: as in `lax`.
        dimension_numbers: as in `lax`.
        feature_group_count: as in `lax`.
        precision: as in `lax`.
        **kwargs: the other arguments of `lax.conv_general_dilated`.

    Returns:
        [B, h, w, L] outputs.
    """
    statics = dict(
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
        **kwargs,
    )
    if is_plain(images, kernel, padding, **statics):
        return plain_conv(images, kernel, tuple(window_strides), tuple(map(tuple, padding)))
    return lax.conv_general_dilated(images, kernel, window_strides, padding, **statics)


def is_plain(
    images, kernel, padding, *, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, precision, **kwargs
) -> bool:
    """Whether this module has its own forms of a convolution.

    The arguments are those of `lax.conv_general_dilated`; the values for which it has are named here.

    Args:
        images: [B, H, W, K].
        kernel: [kh, kw, K, L], of the same type.
        padding: numbers, not a string.
        lhs_dilation: 1 or None.
        rhs_dilation: 1 or None.
        dimension_numbers: those of [B, H, W, K] images and [kh, kw, K, L] kernels.
        feature_group_count: 1.
        precision: None.
        **kwargs: None or 1.
    """
    spec = dimension_numbers and lax.conv_dimension_numbers(images.shape, kernel.shape, dimension_numbers)
    return (
        images.ndim == kernel.ndim == 4
        and images.dtype == kernel.dtype
        and images.shape[-1] == kernel.shape[2]
        and spec == lax.conv_dimension_numbers(images.shape, kernel.shape, _LAYOUT)
        and not isinstance(padding, str)
        and feature_group_count == 1
        and all(d is None or set(d) == {1} for d in (lhs_dilation, rhs_dilation))
        and precision is None
        and not any(value not in (None, 1) for value in kwargs.values())
    )


def xla_conv(images, kernel, strides, padding):
    """XLA's convolution; see `plain_conv`.

    Args:
        images: [B, H, W, K].
        kernel: [kh, kw, K, L].
        strides: along rows and columns.
        padding: ((top, bottom), (left, right)).

    Returns:
        [B, h, w, L].
    """
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def plain_conv(images, kernel, strides, padding) -> jax.Array:
    """A convolution for which `is_plain` holds.

    Args:
        images: [B, H, W, K].
        kernel: [kh, kw, K, L].
        strides: along rows and columns.
        padding: ((top, bottom), (left, right)).

    Returns:
        [B, h, w, L].
    """
    on_cpu, default = (functools.partial(form, strides=strides, padding=padding) for form in (output, xla_conv))
    return platforms.choose(images, kernel, cpu=on_cpu, default=default)


def _conv_forward(images, kernel, strides, padding):
    return plain_conv(images, kernel, strides, padding), (images, kernel)


def _conv_backward(strides, padding, residuals, cotangents):
    images, kernel = residuals
    statics = dict(strides=strides, padding=padding)

    def xla_gradient(argument):
        def gradient(images, kernel, cotangents):
            forward = functools.partial(xla_conv, **statics)
            return jax.vjp(forward, images, kernel)[1](cotangents)[argument]

        return gradient

    # Two choices, not one of a pair, so that a gradient to the images that is not needed is eliminated.
    choose = functools.partial(platforms.choose, images, kernel, cotangents)
    return (
        choose(cpu=functools.partial(input_gradient, **statics), default=xla_gradient(0)),
        choose(cpu=functools.partial(kernel_gradient, **statics), default=xla_gradient(1)),
    )


plain_conv.defvjp(_conv_forward, _conv_backward)


def output(
    images, kernel, *, strides, padding, transposed=False, taps=native.ALL_TAPS, epilogue: native.Epilogue | None = None
) -> jax.Array:
    """The convolution on a CPU.

    Args:
        images: as in `plain_conv`.
        kernel: as in `plain_conv`.
        strides: as in `plain_conv`.
        padding: as in `plain_conv`.
        transposed: as in `native.conv`.
        taps: as in `native.conv`.
        epilogue: as in `native.conv`; None: nothing follows.

    Returns:
        [B, h, w, L].
    """
    window = _window(kernel, taps)
    size = conv_products.output_size(images, window, strides, padding)
    channels, outputs = kernel.shape[:1:-1] if transposed else kernel.shape[2:]
    if _is_native(images, kernel, size, strides, padding):
        (top, _), (left, _) = padding
        winograd = _is_winograd(window, strides, size, channels, outputs)
        statics = dict(stride=strides[0], top=top, left=left, size=size, transposed=transposed, taps=taps)
        if epilogue is None or epilogue.fits((len(images), *size, outputs)):
            return native.conv(images, kernel, epilogue=epilogue, winograd=winograd, **statics)
        return epilogue(native.conv(images, kernel, winograd=winograd, **statics))
    kernel = kernel[taps]
    kernel = jnp.flip(kernel, (0, 1)).swapaxes(2, 3) if transposed else kernel
    form = conv_products.output if conv_products.is_small(images) else xla_conv
    sums = form(images, kernel, strides=strides, padding=padding)
    return sums if epilogue is None else epilogue(sums)


def input_gradient(images, kernel, cotangents, *, strides, padding) -> jax.Array:
    """Gradient to the images, [B, H, W, K], as ordinary convolutions of the cotangents [B, h, w, L].

    The kernel is flipped and its channels are swapped. Pixels whose rows and columns have the same remainder modulo the
    stride use the same taps of the kernel: they are computed together and interleaved at the end.

    Args:
        images: as in `plain_conv`; their shape alone counts.
        kernel: as in `plain_conv`.
        cotangents: [B, h, w, L] of the result.
        strides: as in `plain_conv`.
        padding: as in `plain_conv`.
    """
    if conv_products.is_small(images) and not _is_native(images, kernel, cotangents.shape[1:3], strides, padding):
        return conv_products.input_gradient(images, kernel, cotangents, strides=strides, padding=padding)
    sizes, out_sizes, lows = images.shape[1:3], cotangents.shape[1:3], [low for low, _ in padding]
    # Rows and columns of the padding that are not computed; with a stride, remainders are counted from its first.
    cuts = [low if strides == (1, 1) else 0 for low in lows]
    counts = [
        max(-(-(size + low - cut) // stride), out)
        for size, low, cut, stride, out in zip(sizes, lows, cuts, strides, out_sizes)
    ]

    def pixels(row_remainder, column_remainder):
        taps = slice(row_remainder, None, strides[0]), slice(column_remainder, None, strides[1])
        window = _window(kernel, taps)
        if 0 in window:
            return jnp.zeros((len(images), *counts, images.shape[-1]), images.dtype)
        widths = [(side - 1 - cut, count - out + cut) for side, cut, count, out in zip(window, cuts, counts, out_sizes)]
        return output(cotangents, kernel, strides=(1, 1), padding=widths, transposed=True, taps=taps)

    if strides == (1, 1):
        padded = pixels(0, 0)
    else:
        lines = [jnp.stack([pixels(row, column) for column in range(strides[1])], axis=3) for row in range(strides[0])]
        padded = jnp.stack(lines, axis=2)
        padded = padded.reshape(len(images), counts[0] * strides[0], counts[1] * strides[1], images.shape[-1])
    top, left = (low - cut for low, cut in zip(lows, cuts))
    if min(top, left) < 0:  # images that a negative padding has cut
        widths = [(-low, low + size - side, 0) for low, size, side in zip((top, left), sizes, padded.shape[1:3])]
        return lax.pad(padded, jnp.zeros((), padded.dtype), [(0, 0, 0), *widths, (0, 0, 0)])
    return padded[:, top : top + sizes[0], left : left + sizes[1]]


def _window(kernel, taps: tuple[slice, slice]) -> tuple[int, int]:
    """Number of rows and columns of the kernel that are used."""
    return tuple(len(range(side)[used]) for side, used in zip(kernel.shape, taps))


def kernel_gradient(images, kernel, cotangents, *, strides, padding) -> jax.Array:
    """Gradient to the kernel, [kh, kw, K, L].

    Args:
        images: as in `plain_conv`.
        kernel: as in `plain_conv`; its shape alone counts.
        cotangents: [B, h, w, L] of the result.
        strides: as in `plain_conv`.
        padding: as in `plain_conv`.
    """
    if not _is_native(images, kernel, cotangents.shape[1:3], strides, padding):
        return conv_products.kernel_gradient(images, kernel, cotangents, strides=strides, padding=padding)
    (top, _), (left, _) = padding
    if _is_winograd(kernel.shape[:2], strides, cotangents.shape[1:3], *kernel.shape[2:]):
        return native.winograd_kernel_gradient(images, cotangents, top=top, left=left)
    statics = dict(stride=strides[0], top=top, left=left, window=kernel.shape[:2])
    return native.conv_kernel_gradient(images, cotangents, **statics)


def _is_native(images, kernel, size, strides, padding) -> bool:
    """Whether the C kernels compute it: float32, equal strides, no negative padding, nothing empty."""
    is_float32 = images.dtype == kernel.dtype == jnp.float32
    fits = is_float32 and strides[0] == strides[1] > 0 and min(min(sides) for sides in padding) >= 0
    return fits and min(*size, *images.shape, *kernel.shape) > 0 and native.is_available()


def _is_winograd(window, strides, size, channels, outputs) -> bool:
    """Whether winograd.c is faster: the map is at least as large as its tiles of 4x4, and fills half of them."""
    rows, columns = size
    filled = min(size) >= 4 and 2 * rows * columns >= (-(-rows // 4) * 4) * (-(-columns // 4) * 4)
    return filled and window == (3, 3) and strides == (1, 1) and native.can_use_winograd(channels, outputs)
