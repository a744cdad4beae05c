"""A convolution and all that follows it in a residual block, as one operation on a CPU: for inference.

Batch norm is a factor and a shift for each channel there. Multiplied, added and cut off while the sums are still in
registers, they cost next to nothing; in loops of their own they took a quarter of ResNet-101's time.
"""

import functools

import jax

from minmax_jax.ops import conv, platforms
from minmax_jax.ops.cpu import native


def conv_general_dilated(images, kernel, window_strides, padding, *, finish: native.Finish, **options) -> jax.Array:
    """`conv.conv_general_dilated`, and then `finish`.

    Its gradients are those of the two, one after the other.
    """
    if not conv.is_plain(images, kernel, padding, **options):
        return finish(conv.conv_general_dilated(images, kernel, window_strides, padding, **options))
    arrays = finish.factor, finish.shift, finish.residual
    return _conv(images, kernel, *arrays, tuple(window_strides), tuple(map(tuple, padding)), finish.relu)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _conv(images, kernel, factor, shift, residual, strides, padding, relu):
    def on_cpu(images, kernel, *arrays):
        return conv.output(images, kernel, strides=strides, padding=padding, finish=native.Finish(*arrays, relu=relu))

    def default(images, kernel, *arrays):
        return native.Finish(*arrays, relu=relu)(conv.xla_conv(images, kernel, strides, padding))

    arrays = [factor, shift, *([] if residual is None else [residual])]
    return platforms.choose(images, kernel, *arrays, cpu=on_cpu, default=default)


def _conv_forward(images, kernel, factor, shift, residual, strides, padding, relu):
    def in_turn(images, kernel, *arrays):
        return native.Finish(*arrays, relu=relu)(conv.plain_conv(images, kernel, strides, padding))

    return jax.vjp(in_turn, images, kernel, factor, shift, residual)


def _conv_backward(strides, padding, relu, backward, cotangents):
    del strides, padding, relu
    return backward(cotangents)


_conv.defvjp(_conv_forward, _conv_backward)
