"""Calls of the C kernels in this folder; float32 throughout.

Each call gives the expected shape of every operand, and `_call` compares shapes and types before any memory is read. A
mismatch is an error of the caller, who should have taken XLA's form.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from minmax_jax.ops.cpu.library import is_available

__all__ = [
    "ALL_TAPS",
    "Epilogue",
    "can_use_winograd",
    "conv",
    "conv_kernel_gradient",
    "depthwise",
    "depthwise_input_gradient",
    "depthwise_kernel_gradient",
    "is_available",
    "max_pool",
    "max_pool_gradient",
    "winograd_kernel_gradient",
]

ALL_TAPS = (slice(0, None, 1), slice(0, None, 1))  # rows and columns of a kernel
_MAX_LANES = 16  # numbers of the largest vector
_TRANSFORM = 36  # numbers of the transform of a tile, which covers 4x4 pixels
_MIN_TILES = 64  # that a gradient transforms at once
_SCRATCH = 2**19  # numbers of their transforms, unless these are more; they fit into the cache

# An operand and its expected shape.
_Operand = tuple[jax.Array, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """Epilogue fused into a convolution: y = relu(factor * conv + shift + residual).

    Attributes:
        factor: [L].
        shift: [L].
        residual: [B, h, w, L], or None.
        relu: whether the ReLU is applied.
    """

    factor: jax.Array
    shift: jax.Array
    residual: jax.Array | None = None
    relu: bool = False

    def __call__(self, sums: jax.Array) -> jax.Array:
        """The same in JAX, where it is not fused."""
        sums = (sums * self.factor + self.shift).astype(sums.dtype)
        sums = sums if self.residual is None else self.residual + sums
        return jax.nn.relu(sums) if self.relu else sums

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it can be fused into a float32 convolution of this output shape: nothing broadcasts."""
        shapes = (jnp.shape(self.factor), jnp.shape(self.shift)) == ((shape[-1],), (shape[-1],))
        return shapes and (self.residual is None or (self.residual.shape, self.residual.dtype) == (shape, jnp.float32))


def conv(
    images: jax.Array,
    kernel: jax.Array,
    *,
    stride: int,
    top: int,
    left: int,
    size: tuple[int, int],
    transposed: bool = False,
    taps: tuple[slice, slice] = ALL_TAPS,
    epilogue: Epilogue | None = None,
    winograd: bool = False,
) -> jax.Array:
    """The convolution of [B, H, W, K] images and a [kh, kw, K, L] kernel, [B, *size, L].

    Args:
        images: zero outside of their borders.
        kernel: weights.
        stride: of rows and columns.
        top: rows of zeros above the image.
        left: columns of zeros left of it.
        size: h and w.
        transposed: the kernel is [kh, kw, L, K] and is flipped, as gradients to images need.
        taps: rows and columns of the kernel that are used, each with a start and a step.
        epilogue: fused into it.
        winograd: uses a quarter of the products (winograd.c); for 3x3 kernels, stride 1 and channels for which
            `can_use_winograd` is true.
    """
    channels, outputs = kernel.shape[:1:-1] if transposed else kernel.shape[2:]
    shape = (len(images), *size, outputs)
    operands = [(images, (*images.shape[:3], channels)), (kernel, kernel.shape)]
    if epilogue is not None:
        vectors = (jnp.asarray(vector, jnp.float32) for vector in (epilogue.factor, epilogue.shift))
        operands += [(vector, (outputs,)) for vector in vectors]  # parameters may be kept in double precision
        operands += [] if epilogue.residual is None else [(epilogue.residual, shape)]
    relu = epilogue is not None and epilogue.relu
    attributes = dict(stride=stride, top=top, left=left, transposed=transposed, relu=relu)
    rows, columns = taps
    attributes |= dict(row=rows.start, row_step=rows.step, column=columns.start, column_step=columns.step)
    return _call("winograd" if winograd else "conv", _floats(shape), *operands, **attributes)


def conv_kernel_gradient(
    images: jax.Array, cotangents: jax.Array, *, stride: int, top: int, left: int, window: tuple[int, int]
) -> jax.Array:
    """The gradient of `conv` to its kernel, [*window, K, L], from the cotangents [B, h, w, L].

    Args:
        images: [B, H, W, K].
        cotangents: [B, h, w, L] of the result.
        stride: along rows and columns.
        top: rows of padding above.
        left: columns of padding.
        window: rows and columns of the kernel.
    """
    shape = (*window, images.shape[-1], cotangents.shape[-1])
    operands = _images_and_cotangents(images, cotangents)
    return _call("conv_kernel_gradient", _floats(shape), *operands, stride=stride, top=top, left=left)


def winograd_kernel_gradient(images: jax.Array, cotangents: jax.Array, *, top: int, left: int) -> jax.Array:
    """The gradient of a Winograd `conv` to its kernel, [3, 3, K, L], from the cotangents [B, h, w, L].

    Args:
        images: [B, H, W, K].
        cotangents: [B, h, w, L] of the result.
        top: rows of padding above.
        left: columns of padding.
    """
    channels, (batch, rows, columns, outputs) = images.shape[-1], cotangents.shape
    tiles = batch * -(-rows // 4) * -(-columns // 4)
    numbers = sum(-(-number // _MAX_LANES) * _MAX_LANES for number in (channels, outputs))
    scratch = (_TRANSFORM, min(tiles, max(_MIN_TILES, _SCRATCH // (_TRANSFORM * numbers))), numbers)
    results = _floats((3, 3, channels, outputs)), _floats(scratch)
    operands = _images_and_cotangents(images, cotangents)
    return _call("winograd_kernel_gradient", results, *operands, stride=1, top=top, left=left)[0]


def depthwise(images: jax.Array, kernel: jax.Array, *, stride: int, dilation: int) -> jax.Array:
    """The depthwise convolution of [B, H, W, K] images and a [k, k, 1, K] kernel, k odd, padded symmetrically.

    Args:
        images: [B, H, W, K].
        kernel: [k, k, 1, K].
        stride: along rows and columns.
        dilation: distance of the taps, in pixels.
    """
    batch, *sides, channels = images.shape
    shape = (batch, *(-(-side // stride) for side in sides), channels)
    operands = (images, images.shape), (kernel, (len(kernel), len(kernel), 1, channels))
    return _call("depthwise", _floats(shape), *operands, stride=stride, dilation=dilation)


def depthwise_input_gradient(
    cotangents: jax.Array, kernel: jax.Array, *, stride: int, dilation: int, size: tuple[int, int]
) -> jax.Array:
    """The gradient of `depthwise` to its images, [B, *size, K], from the cotangents [B, h, w, K].

    Args:
        cotangents: [B, h, w, K] of the result.
        kernel: [k, k, 1, K].
        stride: as in `depthwise`.
        dilation: as in `depthwise`.
        size: (H, W) of the images.
    """
    channels = kernel.shape[-1]
    sides = (-(-side // stride) for side in size)
    operands = (cotangents, (len(cotangents), *sides, channels)), (kernel, (len(kernel), len(kernel), 1, channels))
    shape = (len(cotangents), *size, channels)
    return _call("depthwise_input_gradient", _floats(shape), *operands, stride=stride, dilation=dilation)


def depthwise_kernel_gradient(
    images: jax.Array, cotangents: jax.Array, *, stride: int, dilation: int, window: int
) -> jax.Array:
    """The gradient of `depthwise` to its kernel, [window, window, 1, K], from the cotangents [B, h, w, K].

    Args:
        images: [B, H, W, K].
        cotangents: [B, h, w, K] of the result.
        stride: as in `depthwise`.
        dilation: as in `depthwise`.
        window: k, rows and columns of the kernel.
    """
    batch, *sides, channels = images.shape
    expected = (batch, *(-(-side // stride) for side in sides), channels)
    operands = (images, images.shape), (cotangents, expected)
    results = _floats((window, window, 1, channels))
    return _call("depthwise_kernel_gradient", results, *operands, stride=stride, dilation=dilation)


def can_use_winograd(channels: int, outputs: int) -> bool:
    """Whether winograd.c is worthwhile for K channels to L: it pads vectors with zeros."""
    return min(channels, outputs) >= _MAX_LANES


def max_pool(features: jax.Array, *, window: int, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    """Maximum over windows of the ReLU of [B, H, W, K] features, and its index in the window, uint8.

    Args:
        features: [B, H, W, K].
        window: side of the square windows.
        stride: along rows and columns.
        padding: zeros on all sides.
    """
    batch, *sides, channels = features.shape
    shape = (batch, *((side + 2 * padding - window) // stride + 1 for side in sides), channels)
    results = _floats(shape), jax.ShapeDtypeStruct(shape, np.uint8)
    operand = features, features.shape
    return _call("max_pool", results, operand, window=window, stride=stride, padding=padding)


def max_pool_gradient(
    indices: jax.Array, cotangents: jax.Array, *, window: int, stride: int, padding: int, size: tuple[int, int]
) -> jax.Array:
    """The gradient of `max_pool` to its features, [B, *size, K], from the indices and cotangents, [B, h, w, K].

    Args:
        indices: [B, h, w, K] uint8, of `max_pool`.
        cotangents: [B, h, w, K] of the maxima.
        window: as in `max_pool`.
        stride: as in `max_pool`.
        padding: as in `max_pool`.
        size: (H, W) of the features.
    """
    shape = (len(indices), *size, indices.shape[-1])
    operands = (indices, cotangents.shape), (cotangents, indices.shape)
    attributes = dict(window=window, stride=stride, padding=padding)
    return _call("max_pool_gradient", _floats(shape), *operands, index_operand=0, **attributes)


def _images_and_cotangents(images: jax.Array, cotangents: jax.Array) -> tuple[_Operand, _Operand]:
    return (images, images.shape), (cotangents, (len(images), *cotangents.shape[1:]))


def _floats(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def _call(operation: str, results, *operands: _Operand, index_operand: int | None = None, **attributes: int):
    """Calls a kernel; the operand `index_operand` is uint8.

    Raises:
        TypeError: if an operand has another type or shape than expected: the kernel would read out of bounds.
    """
    for position, (array, shape) in enumerate(operands):
        dtype = np.uint8 if position == index_operand else np.float32
        if array.dtype != dtype or array.shape != tuple(shape):
            expected = f"{np.dtype(dtype).name}{list(shape)}"
            raise TypeError(f"{operation}: operand {position} is {array.dtype}{list(array.shape)}, not {expected}.")
    attributes = {key: np.int64(value) for key, value in attributes.items()}
    arrays = [array for array, _ in operands]
    return jax.ffi.ffi_call(f"minmax_{operation}", results, vmap_method="sequential")(*arrays, **attributes)
