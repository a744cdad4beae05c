"""Frozen Vision Transformer trunks with the weights of DINOv2 (Oquab et al., TMLR 2024).

ViT-S/14, without registers or with four (Darcet et al., ICLR 2024). The patch tokens after the last norm are the
features. The parameters stay as they were loaded: no gradient reaches them, and `optimizers` does not decay them.

Images of any size are resized to the nearest multiples of the patch, so that the patches tile the image and feature k
of n lies on pixel (k + 0.5) size / n - 0.5: `mask.alignment=patches`.
"""

import functools

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from minmax_jax.models import trunks
from minmax_jax.ops import bicubic, resize

PATCH = 14  # pixels, height and width
# Of the pixels in [0, 1] that DINOv2 was trained on: those of ImageNet.
_MEAN, _STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
# DINOv2 without registers scales positions by (size + 0.1) / grid instead of size / grid.
_OFFSET = 0.1


class VisionTransformer(nn.Module):
    """Trunk: [B, H, W, 3] images in [-1, 1] to {14: [B, h, w, width] features}, h and w the sides in patches, rounded.

    Attributes:
        width: of the tokens.
        depth: number of blocks.
        num_heads: of the attention; a divisor of `width`.
        num_registers: register tokens, 0 or, as published, 4.
        grid: side in patches of the images that the position embedding is for.
        dtype: of the computation; parameters are float32 in any case.

    Example:
        Features of DINOv2's ViT-S/14 lie on patches of 14 pixels, without running it:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from minmax_jax.models import vit
        >>> trunk, images = vit.vit_small14(), jnp.zeros((1, 224, 224, 3))
        >>> stages, _ = jax.eval_shape(lambda rng: trunk.init_with_output(rng, images, train=False), jax.random.key(0))
        >>> stages[14].shape
        (1, 16, 16, 384)
    """

    width: int = 384
    depth: int = 12
    num_heads: int = 6
    num_registers: int = 0
    grid: int = 37
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> trunks.Stages:
        del train  # nothing in it depends on the batch or is random
        sides = tuple(max(1, round(side / PATCH)) * PATCH for side in images.shape[1:3])
        images = resize.resize_bilinear(images, sides, alignment="patches")
        # Nothing below may be trained: few images with class labels would spoil what DINOv2 learned from 142 million.
        # The parameters are stopped, not the features: `mask.gradient=flow` goes on to the masks through the images.
        # Where these are constant, nothing is left to differentiate, and JAX keeps no activations.
        encoder = nn.map_variables(_Encoder, "params", lax.stop_gradient, init=self.is_initializing())
        attributes = self.width, self.depth, self.num_heads, self.num_registers, self.grid, self.dtype
        return {PATCH: encoder(*attributes, name=trunks.FROZEN)(((images + 1) / 2 - _MEAN) / _STD)}


class _Encoder(nn.Module):
    """[B, 14 h, 14 w, 3] normalized images to [B, h, w, width] features; attributes of `VisionTransformer`."""

    width: int
    depth: int
    num_heads: int
    num_registers: int
    grid: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        window = (PATCH, PATCH)
        patches = nn.Conv(self.width, window, window, padding="VALID", dtype=self.dtype, name="patch_embedding")(images)
        batch, height, width, _ = patches.shape
        tiny, small = nn.initializers.normal(1e-6), nn.initializers.normal(0.02)
        class_token = self.param("class_token", tiny, (1, 1, self.width))
        positions = self.param("position_embedding", small, (1, 1 + self.grid**2, self.width))
        tokens = [class_token + positions[:, :1]]
        if self.num_registers:
            tokens.append(self.param("register_tokens", tiny, (1, self.num_registers, self.width)))
        of_patches = positions[:, 1:].reshape(self.grid, self.grid, self.width)
        of_patches = _interpolate(of_patches, (height, width), has_registers=self.num_registers > 0)
        tokens = [jnp.broadcast_to(token, (batch, *token.shape[1:])) for token in tokens]
        tokens.append((patches + of_patches).reshape(batch, height * width, self.width))
        x = jnp.concatenate([token.astype(self.dtype) for token in tokens], axis=1)
        for index in range(self.depth):
            x = Block(self.num_heads, self.dtype, name=f"block{index}")(x)
        x = _norm(self.dtype, "norm")(x)[:, 1 + self.num_registers :]
        return x.reshape(batch, height, width, self.width)


class Block(nn.Module):
    """x + scale1 attention(norm1(x)), then x + scale2 mlp(norm2(x)), on [B, tokens, width].

    Attributes:
        num_heads: of the attention.
        dtype: of the computation.
    """

    num_heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        *shape, width = x.shape
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        scales = [self.param(name, nn.initializers.ones, (width,)).astype(self.dtype) for name in ("scale1", "scale2")]
        y = dense(3 * width, name="qkv")(_norm(self.dtype, "norm1")(x))
        query, key, value = jnp.moveaxis(y.reshape(*shape, 3, self.num_heads, width // self.num_heads), -3, 0)
        y = jax.nn.dot_product_attention(query, key, value).reshape(*shape, width)
        x = x + scales[0] * dense(width, name="projection")(y)
        y = nn.gelu(dense(4 * width, name="mlp1")(_norm(self.dtype, "norm2")(x)), approximate=False)
        return x + scales[1] * dense(width, name="mlp2")(y)


def _norm(dtype: jnp.dtype, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=dtype, name=name)


def _interpolate(positions: jax.Array, size: tuple[int, int], *, has_registers: bool) -> jax.Array:
    """A [grid, grid, width] position embedding at [*size, width], as DINOv2's code does it for either network.

    Without registers: no antialiasing, and positions scaled by grid / (size + 0.1). With registers: antialiasing, and
    grid / size. Of the grid's own size, the embedding is taken as it is.
    """
    grid = positions.shape[0]
    if size == (grid, grid):
        return positions
    rows, columns = (
        bicubic.interpolation_matrix(grid, side, antialias=True)
        if has_registers
        else bicubic.interpolation_matrix(grid, side, ratio=grid / (side + _OFFSET))
        for side in size
    )
    exact = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    rows, columns = (jnp.asarray(matrix, positions.dtype) for matrix in (rows, columns))
    return exact("pw,hwk->hpk", columns, exact("oh,hwk->owk", rows, positions))


vit_small14 = functools.partial(VisionTransformer)
vit_small14_reg4 = functools.partial(VisionTransformer, num_registers=4)
TRUNKS = {"vit_small14": vit_small14, "vit_small14_reg4": vit_small14_reg4}
