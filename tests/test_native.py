"""How the C files are built, or not; what they compute is compared in test_ops."""

import hashlib
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.ops.cpu import library, native


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing built yet, and nothing remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _forget()
    yield tmp_path / "minmax_jax"
    _forget()


def _forget():
    for function in (native.is_available, library._library):
        function.cache_clear()


def _compute() -> str:
    """Digest of what all functions return."""
    rng = np.random.default_rng(0)
    images, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 41, 38, 40), (3, 3, 40, 56)))
    output = native.conv(images, kernel, stride=2, top=1, left=1, size=(21, 19))
    gradient = native.conv_kernel_gradient(images, output, stride=2, top=1, left=1, window=(3, 3))
    transformed = native.conv(images, kernel, stride=1, top=1, left=1, size=(41, 38), winograd=True)
    transformed_gradient = native.winograd_kernel_gradient(images, transformed, top=1, left=1)
    pool = dict(window=3, stride=2, padding=1)
    maxima, places = native.max_pool(images, **pool)
    pool_gradient = native.max_pool_gradient(places, maxima, **pool, size=images.shape[1:3])
    results = (output, gradient, transformed, transformed_gradient, maxima, places, pool_gradient)
    return hashlib.sha256(b"".join(np.asarray(result).tobytes() for result in results)).hexdigest()


def _is_available_in_new_process(**environment) -> str:
    code = "from minmax_jax.ops.cpu import native; print(native.is_available())"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=True).stdout


def test_it_is_built_once(fresh):
    library._load()
    (built,) = fresh.iterdir()
    written = built.stat().st_mtime_ns
    library._load()
    assert [path.name for path in fresh.iterdir()] == [built.name] and built.stat().st_mtime_ns == written


@pytest.mark.parametrize("compiler, reason", [("no-such-cc", "There is no C compiler"), ("false", "")])
def test_without_a_working_compiler_xla_takes_over(fresh, monkeypatch, caplog, compiler, reason):
    monkeypatch.setenv("CC", compiler)
    assert not native.is_available()
    assert "the C kernels were not built. " + reason in caplog.text
    assert not list(fresh.glob("*.so"))


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_library_is_built_again(fresh, share):
    """In a process of its own: a library that was loaded stays loaded."""
    library._load()
    (built,) = fresh.iterdir()
    content = built.read_bytes()
    built.write_bytes(content[: int(share * len(content))])
    assert _is_available_in_new_process(XDG_CACHE_HOME=str(fresh.parent)).strip() == "True"
    assert len(built.read_bytes()) == len(content)


def test_a_folder_that_cannot_be_written_leaves_all_to_xla(fresh, caplog):
    fresh.write_text("a file in the way")
    assert not native.is_available()
    assert "the C kernels were not built" in caplog.text


def test_without_a_home_directory_the_library_goes_to_the_temporary_folder(tmp_path, monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "expanduser", no_home)
    monkeypatch.setattr(library.tempfile, "gettempdir", lambda: str(tmp_path))
    library._load()
    (built,) = tmp_path.rglob("*.so")
    assert built.parent.stat().st_mode & 0o077 == 0  # nobody else may replace what is loaded


@pytest.mark.parametrize("part", ["C library", "compiler"])
def test_the_library_depends_on_the_c_library_and_the_compiler(fresh, monkeypatch, part):
    before = library._path()
    if part == "C library":
        monkeypatch.setattr(library.platform, "libc_ver", lambda: ("glibc", "1.0"))
    else:
        monkeypatch.setattr(library, "_find_compiler", lambda: "/usr/bin/cc\nanother version")
    assert library._path() != before


_SHAPES = {
    "images": ((2, 9, 8, 16), np.float32),
    "kernel": ((3, 3, 16, 24), np.float32),
    "factor": ((24,), np.float32),
    "shift": ((24,), np.float32),
    "residual": ((2, 9, 8, 24), np.float32),
    "cotangents": ((2, 9, 8, 24), np.float32),
    "indices": ((2, 9, 8, 24), np.uint8),
    "partners": ((2, 9, 8, 16), np.float32),
    "depthwise_kernel": ((3, 3, 1, 16), np.float32),
}
_WINDOW = dict(stride=1, top=1, left=1)
_POOL = dict(window=3, stride=1, padding=1)
_CALLS = {
    "conv": lambda a: native.conv(
        a["images"],
        a["kernel"],
        **_WINDOW,
        size=(9, 8),
        epilogue=native.Epilogue(a["factor"], a["shift"], a["residual"]),
    ),
    "conv_kernel_gradient": lambda a: native.conv_kernel_gradient(
        a["images"], a["cotangents"], **_WINDOW, window=(3, 3)
    ),
    "winograd_kernel_gradient": lambda a: native.winograd_kernel_gradient(a["images"], a["cotangents"], top=1, left=1),
    "max_pool": lambda a: native.max_pool(a["images"], **_POOL),
    "max_pool_gradient": lambda a: native.max_pool_gradient(a["indices"], a["cotangents"], **_POOL, size=(9, 8)),
    "depthwise": lambda a: native.depthwise(a["images"], a["depthwise_kernel"], stride=2, dilation=1),
    "depthwise_input_gradient": lambda a: native.depthwise_input_gradient(
        a["images"], a["depthwise_kernel"], stride=1, dilation=2, size=(9, 8)
    ),
    "depthwise_kernel_gradient": lambda a: native.depthwise_kernel_gradient(
        a["images"], a["partners"], stride=1, dilation=1, window=3
    ),
}


@pytest.mark.parametrize(
    "operation, name, shape, dtype",
    [
        ("depthwise", "images", (2, 9, 8, 16), np.float64),
        ("depthwise", "depthwise_kernel", (3, 3, 1, 24), np.float32),
        ("depthwise", "depthwise_kernel", (3, 5, 1, 16), np.float32),
        ("depthwise_input_gradient", "images", (2, 5, 4, 16), np.float32),
        ("depthwise_input_gradient", "depthwise_kernel", (3, 3, 1, 8), np.float32),
        ("depthwise_kernel_gradient", "partners", (2, 8, 8, 16), np.float32),
        ("depthwise_kernel_gradient", "partners", (1, 9, 8, 16), np.float32),
        ("conv", "kernel", (3, 3, 16, 24), jnp.bfloat16),
        ("conv", "images", (2, 9, 8, 16), jnp.bfloat16),
        ("conv", "images", (2, 9, 8, 16), np.float64),
        ("conv", "kernel", (3, 3, 32, 24), np.float32),
        ("conv", "images", (2, 9, 8, 8), np.float32),
        ("conv", "factor", (1,), np.float32),
        ("conv", "shift", (25,), np.float32),
        ("conv", "residual", (1, 9, 8, 24), np.float32),
        ("conv", "residual", (2, 9, 8, 1), np.float32),
        ("conv", "residual", (2, 9, 8, 24), jnp.bfloat16),
        ("conv_kernel_gradient", "cotangents", (2, 9, 8, 24), jnp.bfloat16),
        ("conv_kernel_gradient", "cotangents", (1, 9, 8, 24), np.float32),
        ("winograd_kernel_gradient", "images", (3, 9, 8, 16), np.float32),
        ("max_pool", "images", (2, 9, 8, 16), jnp.bfloat16),
        ("max_pool_gradient", "indices", (2, 9, 8, 24), np.float32),
        ("max_pool_gradient", "indices", (2, 9, 7, 24), np.uint8),
    ],
)
def test_operands_that_would_be_read_out_of_bounds_are_refused(operation, name, shape, dtype):
    """When a call is traced: no kernel runs."""
    with jax.enable_x64(True):
        operands = {key: jax.ShapeDtypeStruct(*value) for key, value in _SHAPES.items()}
        jax.eval_shape(_CALLS[operation], operands)
        with pytest.raises(TypeError, match=f"{operation}: operand"):
            jax.eval_shape(_CALLS[operation], operands | {name: jax.ShapeDtypeStruct(shape, dtype)})


def test_it_can_be_switched_off(fresh, monkeypatch):
    monkeypatch.setenv("MINMAX_JAX_NATIVE", "off")
    assert not native.is_available()
    assert not fresh.exists()


def test_the_number_of_threads_changes_nothing():
    command = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    command += "from minmax_jax.ops.cpu import native; assert native.is_available()\n"
    command += "from tests import test_native; print(test_native._compute())"
    one_thread = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, env=os.environ | {"XLA_FLAGS": ""}
    )
    assert native.is_available()
    assert one_thread.stdout.split()[-1] == _compute()


_SHORT_OF_MEMORY = """
import resource, jax, jax.numpy as jnp, numpy as np
from minmax_jax.ops.cpu import native
images, kernel = jax.block_until_ready((jnp.ones((1, 1, 1, 4096)), jnp.ones((1, 1, 4096, 4096))))
conv = jax.jit(lambda *arrays: native.conv(*arrays, stride=1, top=0, left=0, size=(1, 1)))
assert native.is_available()
compiled = conv.lower(images, kernel).compile()
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**24, unlimited[1]))  # The kernel in another order takes 2**26.
try:
    jax.block_until_ready(compiled(images, kernel))
except jax.errors.JaxRuntimeError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, unlimited)
print(np.unique(compiled(images, kernel)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_that_is_not_there_is_an_error_and_not_the_end():
    said = subprocess.run([sys.executable, "-c", _SHORT_OF_MEMORY], capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[:2] == ["RESOURCE_EXHAUSTED: Out of memory.", "[4096.]"]
