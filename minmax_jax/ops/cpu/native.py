"""Builds the C files beside it for the machine at hand, once, and hands them to XLA.

It takes some seconds, a C compiler (`cc`, or what the environment variable CC names), and a folder in ~/.cache. Where
there is no compiler, or with MINMAX_JAX_NATIVE=off, `is_available` says no, and all is left to XLA: results are the
same but for rounding, and a training step takes longer (docs/performance.md).
"""

import ctypes
import dataclasses
import functools
import hashlib
import logging
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile

import jax
import jaxlib
import numpy as np

logger = logging.getLogger(__name__)
_FOLDER = pathlib.Path(__file__).parent
_SOURCES = tuple(_FOLDER / name for name in ("conv.c", "winograd.c", "max_pool.c", "channel_sums.c"))
_CONVOLUTIONS = ("conv", "conv_kernel_gradient", "winograd", "winograd_kernel_gradient")
_OPERATIONS = (*_CONVOLUTIONS, "max_pool", "max_pool_gradient", "channel_sums")
ALL_PLACES = (slice(0, None, 1), slice(0, None, 1))  # of a kernel
_MOST_LANES = 16  # numbers of the largest vector
_PLACES = 36  # of the transform of a tile, which covers 4x4 pixels
_LEAST_TILES = 64  # that a gradient takes in at once
_SCRATCH = 2**19  # numbers of their transforms, unless these are more; they stay in the cache
# -ffp-contract=fast is what makes a product and a sum one instruction; gcc's default, not everyone's.
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-std=gnu11")


@functools.cache
def is_available() -> bool:
    """Whether the functions below can be called; the first call builds what they need."""
    if os.environ.get("MINMAX_JAX_NATIVE", "on") == "off" or jax.default_backend() != "cpu":
        return False
    try:
        library = ctypes.CDLL(str(_build()))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        logger.warning("Convolutions on this CPU are slower than they could be: their C code was not built. %s", reason)
        return False
    for name in (f"minmax_{operation}" for operation in _OPERATIONS):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


def _build() -> pathlib.Path:
    """The library, built unless it was before, for this very processor."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("There is no C compiler; install gcc, or name one in the environment variable CC.")
    texts = [path.read_text() for path in sorted(_FOLDER.glob("*.[ch]"))]
    parts = (*texts, compiler, " ".join(_FLAGS), jaxlib.__version__, _describe_processor())
    name = f"conv-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:16]}.so"
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "minmax_jax"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = pathlib.Path(scratch) / name
            command = [compiler, *_FLAGS, "-I", jax.ffi.include_dir(), *map(str, _SOURCES), "-o", str(built)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            built.rename(folder / name)  # whole, whoever else builds it
    return folder / name


def _describe_processor() -> str:
    """What -march=native depends on."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features", "CPU part")
    return "".join(sorted({line for line in lines if line.startswith(wanted)})) or platform.processor()


@dataclasses.dataclass(frozen=True)
class Finish:
    """What a convolution does to its sums before it writes them, in this order.

    Attributes:
        factor: [L] what they are multiplied by.
        shift: [L] what is added.
        residual: [B, h, w, L] added, too, or None.
        relu: whether negative numbers become 0.
    """

    factor: jax.Array
    shift: jax.Array
    residual: jax.Array | None = None
    relu: bool = False

    def __call__(self, sums: jax.Array) -> jax.Array:
        """The same by JAX, where it does not belong to the convolution."""
        sums = (sums * self.factor + self.shift).astype(sums.dtype)
        sums = sums if self.residual is None else self.residual + sums
        return jax.nn.relu(sums) if self.relu else sums


def conv(
    images: jax.Array,
    kernel: jax.Array,
    *,
    stride: int,
    top: int,
    left: int,
    size: tuple[int, int],
    turned: bool = False,
    places: tuple[slice, slice] = ALL_PLACES,
    finish: Finish | None = None,
    transformed: bool = False,
) -> jax.Array:
    """The convolution of [B, H, W, K] images and a [kh, kw, K, L] kernel, [B, *size, L]; all float32.

    Args:
        images: outside of them all is 0.
        kernel: weights.
        stride: of rows and columns.
        top: rows of zeros above the image.
        left: columns of zeros beside it.
        size: h and w.
        turned: the kernel is [kh, kw, L, K], and its places are taken from last to first, as gradients to images need.
        places: rows and columns of the kernel that are taken, each with a start and a step.
        finish: what follows.
        transformed: with a quarter of the products, by winograd.c; for 3x3 kernels, stride 1 and channels for which
            `can_transform` holds.
    """
    shape, arrays = (len(images), *size, kernel.shape[2 if turned else 3]), [images, kernel]
    if finish is not None:
        others = [finish.factor, finish.shift, *([] if finish.residual is None else [finish.residual])]
        arrays += [array.astype(np.float32) for array in others]  # parameters may be kept in double precision
    attributes = dict(stride=stride, top=top, left=left, turned=turned, relu=finish is not None and finish.relu)
    rows, columns = places
    attributes |= dict(row=rows.start, row_step=rows.step, column=columns.start, column_step=columns.step)
    return _call("winograd" if transformed else "conv", _floats(shape), *arrays, **attributes)


def conv_kernel_gradient(
    images: jax.Array, cotangents: jax.Array, *, stride: int, top: int, left: int, window: tuple[int, int]
) -> jax.Array:
    """The gradient of `conv` to its kernel, [*window, K, L], from the cotangents [B, h, w, L]; all float32."""
    shape = (*window, images.shape[-1], cotangents.shape[-1])
    return _call("conv_kernel_gradient", _floats(shape), images, cotangents, stride=stride, top=top, left=left)


def winograd_kernel_gradient(images: jax.Array, cotangents: jax.Array, *, top: int, left: int) -> jax.Array:
    """The gradient of a transformed `conv` to its kernel, [3, 3, K, L], from the cotangents [B, h, w, L]."""
    channels, (batch, rows, columns, outputs) = images.shape[-1], cotangents.shape
    tiles = batch * -(-rows // 4) * -(-columns // 4)
    numbers = sum(-(-number // _MOST_LANES) * _MOST_LANES for number in (channels, outputs))
    scratch = (_PLACES, min(tiles, max(_LEAST_TILES, _SCRATCH // (_PLACES * numbers))), numbers)
    results = _floats((3, 3, channels, outputs)), _floats(scratch)
    return _call("winograd_kernel_gradient", results, images, cotangents, stride=1, top=top, left=left)[0]


def can_transform(channels: int, outputs: int) -> bool:
    """Whether winograd.c is worth while for K channels to L: it fills vectors up with zeros."""
    return min(channels, outputs) >= _MOST_LANES


def max_pool(features: jax.Array, *, window: int, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    """Of each window of the ReLU of [B, H, W, K] features: the maximum, and a byte that says where it lies; float32."""
    batch, *sides, channels = features.shape
    shape = (batch, *((side + 2 * padding - window) // stride + 1 for side in sides), channels)
    results = _floats(shape), jax.ShapeDtypeStruct(shape, np.uint8)
    return _call("max_pool", results, features, window=window, stride=stride, padding=padding)


def max_pool_gradient(
    places: jax.Array, cotangents: jax.Array, *, window: int, stride: int, padding: int, size: tuple[int, int]
) -> jax.Array:
    """The gradient of `max_pool` to its features, [B, *size, K], from the places and cotangents, [B, h, w, K]."""
    shape = (len(places), *size, places.shape[-1])
    return _call("max_pool_gradient", _floats(shape), places, cotangents, window=window, stride=stride, padding=padding)


def channel_sums(values: jax.Array, partners: jax.Array, centres: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `channel_sums.channel_sums`, in float32, parts of the sums in float64."""
    return tuple(_call("channel_sums", [_floats(centres.shape)] * 2, values, partners, centres))


def _floats(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def _call(operation: str, results, *arrays: jax.Array, **attributes: int):
    attributes = {key: np.int64(value) for key, value in attributes.items()}
    return jax.ffi.ffi_call(f"minmax_{operation}", results, vmap_method="sequential")(*arrays, **attributes)
