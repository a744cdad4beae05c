"""Residual trunks.

ResNet (He et al. 2016) with three 3x3 convolutions for a stem, as the publication uses it, or with the original 7x7
convolution. Width, depth and strides are free, so that a small trunk of output stride 4 or 8 serves small images.
"""

from collections.abc import Callable
import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from minmax_jax.models import batch_norm, trunks
from minmax_jax.ops import canvas, conv, fused_conv, max_pool, platforms
from minmax_jax.ops.cpu import native

ModuleDef = Callable[..., nn.Module]
# Convolutions before the max pool: (channels as a multiple of the width, window, stride).
STEMS = {"deep": ((1, 3, 2), (1, 3, 1), (2, 3, 1)), "plain": ((1, 7, 2),)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ResNet-18 and -34."""

    channels: int
    stride: int
    layer: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array, sizes: jax.Array | None = None) -> jax.Array:
        """[B, h, w, K] features, of images of the sizes [B, 2] in them if these are given."""
        y = self.layer(canvas.clear(x, sizes), self.channels, 3, self.stride, name="{}1")
        shortcut = _shortcut(x, self.channels, self.stride, layer=self.layer)
        y = canvas.clear(y, canvas.at_stride(sizes, self.stride))
        return self.layer(y, self.channels, 3, 1, name="{}2", residual=shortcut)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions, four times as wide at the end, and a shortcut; ResNet-50 and deeper."""

    channels: int
    stride: int
    layer: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array, sizes: jax.Array | None = None) -> jax.Array:
        """[B, h, w, K] features, of images of the sizes [B, 2] in them if these are given."""
        y = canvas.clear(self.layer(x, self.channels, 1, 1, name="{}1"), sizes)
        y = self.layer(y, self.channels, 3, self.stride, name="{}2")
        shortcut = _shortcut(x, 4 * self.channels, self.stride, layer=self.layer)
        return self.layer(y, 4 * self.channels, 1, 1, name="{}3", residual=shortcut)


def _shortcut(x: jax.Array, channels: int, stride: int, *, layer: ModuleDef) -> jax.Array:
    """The input of a block in the shape of its output."""
    if x.shape[-1] == channels and stride == 1:
        return x
    return layer(x, channels, 1, stride, name="shortcut_{}", relu=False)


class ResNet(nn.Module):
    """Trunk: [B, H, W, 3] images to {output stride: [B, h, w, K] features}; also of a `Canvas`.

    The stem halves the image twice (a convolution and a max pool of stride 2), so the output stride is 4 times
    the product of `stage_strides`.

    Attributes:
        stage_sizes: blocks of each stage.
        stage_strides: stride of each stage's first block.
        width: channels of the first stage; each further stage has twice as many.
        block: the residual block.
        stem: "deep" (three 3x3 convolutions; published) or "plain" (one 7x7, as torchvision's networks have).
        unbiased_variance: of the running statistics, as in `batch_norm.BatchNorm`.
        remat: rematerialise blocks in the backward pass: less memory for more time, see docs/steps.md.
        norm_axis: mapped axis over which batch statistics are taken together (cross-replica batch norm).
        dtype: of the computation; parameters and statistics are float32 in any case.

    Example:
        The features of each stage, by output stride, without running the network:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> trunk, images = mm.ResNet(stage_sizes=(1, 1), stage_strides=(1, 2), width=16), jnp.zeros((1, 64, 64, 3))
        >>> stages, _ = jax.eval_shape(lambda rng: trunk.init_with_output(rng, images, train=False), jax.random.key(0))
        >>> {stride: features.shape for stride, features in stages.items()}
        {4: (1, 16, 16, 16), 8: (1, 8, 8, 32)}
    """

    stage_sizes: tuple[int, ...]
    stage_strides: tuple[int, ...] = (1, 2, 2, 2)
    width: int = 64
    block: ModuleDef = BasicBlock
    stem: str = "deep"
    unbiased_variance: bool = False
    remat: bool = False
    norm_axis: str | None = None
    dtype: jnp.dtype = jnp.float32
    reads_canvases: ClassVar[bool] = True

    @nn.compact
    def __call__(self, images: canvas.Images, *, train: bool) -> trunks.Stages:
        if self.stem not in STEMS:
            raise ValueError(f"stem={self.stem!r} must be one of {tuple(STEMS)}.")
        norm = functools.partial(
            batch_norm.BatchNorm,
            unbiased_variance=self.unbiased_variance,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.norm_axis if train else None,
            dtype=self.dtype,
        )
        layer = functools.partial(_layer, norm=norm, dtype=self.dtype)
        x, sizes = canvas.split(images)
        stem, reached = STEMS[self.stem], 1
        for index, (channels, window, stride) in enumerate(stem, start=1):
            x = layer(x, channels * self.width, window, stride, name=f"stem_{{}}{index}", relu=index < len(stem))
            reached *= stride
            x = canvas.clear(x, canvas.at_stride(sizes, reached))
        x = max_pool.relu_max_pool(x, 3, 2, 1)
        block = nn.remat(self.block) if self.remat else self.block
        # All but the first block of a stage are traced and lowered once, in stages where that is faster. Not for init:
        # jitted functions draw other random numbers.
        repeated = block if self.is_initializing() else nn.jit(block)
        stride, stages = 4, {}
        for stage, (blocks, stage_stride) in enumerate(zip(self.stage_sizes, self.stage_strides, strict=True)):
            for index in range(blocks):
                x = (repeated if blocks > 2 and index > 0 else block)(
                    channels=self.width * 2**stage,
                    stride=stage_stride if index == 0 else 1,
                    layer=layer,
                    name=f"stage{stage + 1}_block{index + 1}",
                )(x, canvas.at_stride(sizes, stride if index == 0 else stride * stage_stride))
            stride *= stage_stride
            stages[stride] = x
        return stages


def _layer(
    x: jax.Array,
    channels: int,
    window: int,
    stride: int,
    *,
    name: str,
    norm: ModuleDef,
    dtype: jnp.dtype,
    residual: jax.Array | None = None,
    relu: bool = True,
) -> jax.Array:
    """Convolution without bias, batch norm, residual, ReLU; `name` is a pattern for the names of the first two."""
    normalize = norm(channels, name=name.format("norm"))
    convolve = functools.partial(
        nn.Conv,
        channels,
        (window, window),
        strides=(stride, stride),
        # Symmetric, unlike flax's "SAME" for stride 2.
        padding=[(window // 2, window // 2)] * 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        name=name.format("conv"),
    )
    if normalize.use_running_average:
        epilogue = native.Epilogue(*normalize.running_affine(), residual=residual, relu=relu)
        if platforms.is_portable():
            return epilogue(convolve()(x))
        form = functools.partial(fused_conv.conv_general_dilated, epilogue=epilogue)
        return convolve(conv_general_dilated=form)(x)
    y = normalize(convolve(conv_general_dilated=conv.conv_general_dilated)(x))
    y = y if residual is None else residual + y
    return nn.relu(y) if relu else y


resnet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2))
resnet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3))
resnet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock)
resnet101 = functools.partial(ResNet, stage_sizes=(3, 4, 23, 3), block=BottleneckBlock)
TRUNKS = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50, "resnet101": resnet101}
