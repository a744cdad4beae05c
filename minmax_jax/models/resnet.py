"""Residual trunks: images in, a feature map out.

ResNet (He et al. 2016) with three 3x3 convolutions for a stem, as the publication uses it, or with the original 7x7
convolution. Width, depth and strides are free, so that a small trunk of output stride 4 or 8 serves small images.
"""

from collections.abc import Callable
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from minmax_jax.models import batch_norm
from minmax_jax.ops import conv, max_pool

ModuleDef = Callable[..., nn.Module]
# Convolutions before the max pool: (channels as a multiple of the width, window, stride).
STEMS = {"deep": ((1, 3, 2), (1, 3, 1), (2, 3, 1)), "plain": ((1, 7, 2),)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ResNet-18 and -34."""

    channels: int
    stride: int
    conv: ModuleDef
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        residual = x
        y = self.conv(self.channels, (3, 3), self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.channels, (3, 3), 1, name="conv2")(y)
        y = self.norm(name="norm2")(y)
        if residual.shape != y.shape:
            residual = self.conv(self.channels, (1, 1), self.stride, name="shortcut_conv")(residual)
            residual = self.norm(name="shortcut_norm")(residual)
        return nn.relu(residual + y)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions, four times as wide at the end, and a shortcut; ResNet-50 and deeper."""

    channels: int
    stride: int
    conv: ModuleDef
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        residual = x
        y = self.conv(self.channels, (1, 1), 1, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.channels, (3, 3), self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(4 * self.channels, (1, 1), 1, name="conv3")(y)
        y = self.norm(name="norm3")(y)
        if residual.shape != y.shape:
            residual = self.conv(4 * self.channels, (1, 1), self.stride, name="shortcut_conv")(residual)
            residual = self.norm(name="shortcut_norm")(residual)
        return nn.relu(residual + y)


class ResNet(nn.Module):
    """Trunk: [B, H, W, 3] images to [B, h, w, K] features.

    The stem halves the image twice (a convolution and a max pool of stride 2), so the output stride is 4 times
    the product of `stage_strides`.

    Attributes:
        stage_sizes: blocks of each stage.
        stage_strides: stride of each stage's first block.
        width: channels of the first stage; each further stage has twice as many.
        block: the residual block.
        stem: "deep" (three 3x3 convolutions; published) or "plain" (one 7x7, as torchvision's networks have).
        unbiased_variance: of the running statistics, as in `batch_norm.BatchNorm`.
        remat: keep no more than each block's input for the gradients, and compute the block again: less memory for
            more time, see docs/performance.md.
        norm_axis: mapped axis over which batch statistics are taken together (cross-replica batch norm).
        dtype: of the computation; parameters and statistics are float32 in any case.
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

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
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
        convolution = functools.partial(_convolution, dtype=self.dtype)
        x = images
        for index, (channels, window, stride) in enumerate(STEMS[self.stem], start=1):
            x = x if index == 1 else nn.relu(x)
            x = convolution(channels * self.width, (window, window), stride, name=f"stem_conv{index}")(x)
            x = norm(name=f"stem_norm{index}")(x)
        # The maximum of ReLUs is the ReLU of the maximum, on a quarter of the places.
        x = nn.relu(max_pool.max_pool(x, 3, 2, 1))
        block = nn.remat(self.block) if self.remat else self.block
        # All but the first block of a stage are traced and lowered once, where that pays. Not for init: functions of
        # their own draw other numbers.
        repeated = block if self.is_initializing() else nn.jit(block)
        for stage, (blocks, stage_stride) in enumerate(zip(self.stage_sizes, self.stage_strides, strict=True)):
            for index in range(blocks):
                x = (repeated if blocks > 2 and index > 0 else block)(
                    channels=self.width * 2**stage,
                    stride=stage_stride if index == 0 else 1,
                    conv=convolution,
                    norm=norm,
                    name=f"stage{stage + 1}_block{index + 1}",
                )(x)
        return x


def _convolution(channels: int, window: tuple[int, int], stride: int, *, dtype, name: str) -> nn.Conv:
    """A convolution without bias, padded alike on both sides (flax's "SAME" is not, for stride 2)."""
    return nn.Conv(
        channels,
        window,
        strides=(stride, stride),
        padding=[(size // 2, size // 2) for size in window],
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        conv_general_dilated=conv.conv_general_dilated,
        name=name,
    )


resnet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2))
resnet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3))
resnet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock)
resnet101 = functools.partial(ResNet, stage_sizes=(3, 4, 23, 3), block=BottleneckBlock)
TRUNKS = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50, "resnet101": resnet101}
