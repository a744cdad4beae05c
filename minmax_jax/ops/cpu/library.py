"""Compiles the C files in this folder for this machine, once, and registers them with XLA.

That takes some seconds and needs a C compiler (`cc`, or the one in the environment variable CC). Without a compiler, or
with MINMAX_JAX_NATIVE=off, `is_available` is False and XLA computes everything: results are equal up to rounding, and a
training step takes longer (docs/steps.md).
"""

from collections.abc import Callable
import ctypes
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

logger = logging.getLogger(__name__)
_FOLDER = pathlib.Path(__file__).parent
_SOURCES = tuple(sorted(_FOLDER.glob("*.c")))
_CONVOLUTIONS = ("conv", "conv_kernel_gradient", "winograd", "winograd_kernel_gradient")
_DEPTHWISE = ("depthwise", "depthwise_input_gradient", "depthwise_kernel_gradient")
_OPERATIONS = (*_CONVOLUTIONS, *_DEPTHWISE, "max_pool", "max_pool_gradient", "adam", "sum_of_squares")
_HOST_FUNCTIONS = ("box_overlaps",)  # of NumPy arrays; XLA does not call them
# -ffp-contract=fast fuses a product and a sum into one instruction; the default of gcc, not of every compiler.
# -fno-math-errno: a root is one instruction of a vector.
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-std=gnu11")
_DIGEST_BYTES = 32


@functools.cache
def is_available() -> bool:
    """Whether the kernels can be called; the first call builds them."""
    library = _library() if jax.default_backend() == "cpu" else None
    if library is None:
        return False
    for operation in _OPERATIONS:
        name = f"minmax_{operation}"
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


def host_function(name: str) -> Callable[..., int] | None:
    """A function of the library for arrays of the host, on any platform of JAX; None without the library."""
    library = _library()
    return None if library is None else getattr(library, f"minmax_{name}")


@functools.cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get("MINMAX_JAX_NATIVE", "on") == "off":
        return None
    try:
        return _load()
    except (OSError, AttributeError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        logger.warning("Convolutions on this CPU are slow: the C kernels were not built. %s", reason)
        return None


def _load() -> ctypes.CDLL:
    """The library, built if there is none; one that is truncated or damaged is built anew."""
    path = _path()
    if path.exists():
        try:
            return _open(path)
        except (OSError, AttributeError) as error:
            logger.info("%s cannot be loaded (%s) and is built again.", path, error)
    _build(path)
    return _open(path)


def _open(path: pathlib.Path) -> ctypes.CDLL:
    # A truncated library may load, and crash when a missing page is read: the digest at its end is compared first.
    content = path.read_bytes()
    if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
        raise OSError("its digest differs")
    library = ctypes.CDLL(str(path))
    for name in (*_OPERATIONS, *_HOST_FUNCTIONS):
        getattr(library, f"minmax_{name}")
    return library


def _path() -> pathlib.Path:
    """File of the library, named by everything that its code depends on."""
    compiler = _find_compiler()
    texts = [path.read_text() for path in sorted(_FOLDER.glob("*.[ch]"))]
    parts = (*texts, compiler, " ".join(_FLAGS), jaxlib.__version__, _describe_processor(), *platform.libc_ver())
    name = f"conv-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"
    return _cache_folder() / "minmax_jax" / name


def _find_compiler() -> str:
    """Path and version of the compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise FileNotFoundError("There is no C compiler; install gcc, or set the environment variable CC to one.")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    return f"{compiler}\n{version.partition(chr(10))[0]}"


def _cache_folder() -> pathlib.Path:
    """$XDG_CACHE_HOME or ~/.cache; without a home directory a folder of this user in the temporary one."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(folder)
    try:
        return pathlib.Path("~/.cache").expanduser()
    except RuntimeError:
        return pathlib.Path(tempfile.gettempdir()) / f"cache-of-user-{os.getuid()}"


def _build(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{path.parent} belongs to another user.")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        built = pathlib.Path(scratch) / path.name
        compiler = _find_compiler().partition("\n")[0]
        command = [compiler, *_FLAGS, "-I", jax.ffi.include_dir(), *map(str, _SOURCES), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        with built.open("ab") as file:  # loaders ignore what follows the last section
            file.write(hashlib.sha256(built.read_bytes()).digest())
        built.rename(path)  # when it is complete: other processes may build it as well


def _describe_processor() -> str:
    """The properties that -march=native depends on."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features", "CPU part")
    return "".join(sorted({line for line in lines if line.startswith(wanted)})) or platform.processor()
