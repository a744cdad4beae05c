"""How the C files are built, or not; what they compute is compared in test_ops and test_batch_norm."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from minmax_jax.ops.cpu import native


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing built yet, and nothing remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.is_available.cache_clear()
    yield tmp_path / "minmax_jax"
    native.is_available.cache_clear()


def _compute() -> str:
    """Digest of what all functions return."""
    rng = np.random.default_rng(0)
    images, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 41, 38, 40), (3, 3, 40, 56)))
    output = native.conv(images, kernel, stride=2, top=1, left=1, size=(21, 19))
    gradient = native.conv_kernel_gradient(images, output, stride=2, top=1, left=1, window=(3, 3))
    transformed = native.conv(images, kernel, stride=1, top=1, left=1, size=(41, 38), transformed=True)
    transformed_gradient = native.winograd_kernel_gradient(images, transformed, top=1, left=1)
    pool = dict(window=3, stride=2, padding=1)
    maxima, places = native.max_pool(images, **pool)
    pool_gradient = native.max_pool_gradient(places, maxima, **pool, size=images.shape[1:3])
    sums = native.channel_sums(images, images, np.ones(40, np.float32))
    results = (output, gradient, transformed, transformed_gradient, maxima, places, pool_gradient, *sums)
    return hashlib.sha256(b"".join(np.asarray(result).tobytes() for result in results)).hexdigest()


def test_it_is_built_once(fresh):
    built = native._build()
    written = built.stat().st_mtime_ns
    assert [path.name for path in fresh.iterdir()] == [built.name]
    assert native._build() == built and built.stat().st_mtime_ns == written


@pytest.mark.parametrize("compiler, reason", [("no-such-cc", "There is no C compiler"), ("false", "")])
def test_without_a_working_compiler_xla_takes_over(fresh, monkeypatch, caplog, compiler, reason):
    monkeypatch.setenv("CC", compiler)
    assert not native.is_available()
    assert "slower than they could be: their C code was not built. " + reason in caplog.text
    assert not list(fresh.glob("*.so"))


def test_a_library_that_is_none_is_told(fresh, monkeypatch, caplog):
    native._build().write_bytes(b"")
    assert not native.is_available()
    assert "their C code was not built" in caplog.text


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
