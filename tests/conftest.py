"""Four fake devices, one compilation cache, trainings that tests share, and tests that need data of ../shared."""

import fcntl
import hashlib
import importlib.metadata
import os
import pathlib
import pickle
import platform
import shutil

# Unoptimised machine code, made in one piece by the older and simpler of XLA's two emitters for CPUs: the networks here
# take longer to compile than to run, and these options save four fifths of that. XLA ends a process that names an
# option it does not have, such as, in jaxlib 0.12, that of the emitters.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",
        *["--xla_cpu_use_fusion_emitters=false"] * importlib.metadata.version("jaxlib").startswith("0.10."),
    ]
)

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.runs.drawing import pictures

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"
# Compiled programs of all sessions of this user: most of the time of a first session is spent on compiling.
_COMPILED = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "minmax_jax_tests").expanduser()
_MAX_COMPILED_BYTES = 2 << 30
_RUN_NAME = "run & <b>"  # which pages have to escape


def pytest_collection_modifyitems(items):
    """Deselects tests that need ../shared where it does not exist."""
    if not SHARED.exists():
        items[:] = [item for item in items if "shared" not in item.keywords]


@pytest.fixture
def shared():
    return SHARED


def pytest_configure():
    """Empties the folder of compiled programs when it is too large, before any worker reads it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        size = sum(path.stat().st_size for path in _COMPILED.rglob("*-cache"))
        if size > _MAX_COMPILED_BYTES:
            shutil.rmtree(_COMPILED, ignore_errors=True)


def _digest_cpu() -> str:
    """Names the instructions that this CPU has: code that was compiled for another one may not run here."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else [platform.processor()]
    flags = next((line for line in lines if line.startswith("flags")), lines[0])
    return hashlib.sha256(flags.encode()).hexdigest()[:8]


def _session_folder(tmp_path_factory) -> pathlib.Path:
    """A folder that all workers of this session share."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """One cache for all workers, kept for later sessions.

    Started programs share one of this session alone: a test that kills such a program may leave half an entry.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_session_folder(tmp_path_factory) / "compiled"))
    folder = _COMPILED / _digest_cpu()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture
def no_compilation_cache():
    """Everything is compiled, and nothing written: for tests of the compiler's own numbers, and of full disks."""
    jax.config.update("jax_enable_compilation_cache", False)
    jax_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    jax_cache.reset_cache()


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Calls a function for all workers of this session once: `once(name, create)`.

    The first worker that needs the result calls `create(folder)`; another one waits for it. Gives the folder, which a
    test must not change, and what the function returned.
    """

    def call(name, create):
        root = _session_folder(tmp_path_factory) / "once" / name
        root.mkdir(parents=True, exist_ok=True)
        result = root / "result.pickle"
        with (root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not result.exists():
                shutil.rmtree(root / _RUN_NAME, ignore_errors=True)
                content = pickle.dumps(create(root / _RUN_NAME))
                result.write_bytes(content)
        return root / _RUN_NAME, pickle.loads(result.read_bytes())

    return call


@pytest.fixture(scope="session")
def tiny_run(once):
    """(folder, (results, traces)) of an undisturbed run of `programs.TINY` on the four fake devices; read only."""
    from tests import programs

    return once("tiny", programs.train_tiny)


@pytest.fixture(scope="session", autouse=True)
def few_pictures():
    """Two pictures of each run in this process: drawing eight takes longer than its training."""
    pictures.NUM_PICTURES = 2


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "images": jnp.asarray(rng.integers(0, 256, (8, 32, 32, 3), np.uint8)),
        "labels": jnp.arange(8, dtype=jnp.int32) % 3,
    }


@pytest.fixture
def own_flags():
    """No flags but those that programs share: modules that other tests have imported define flags of the same names."""
    from tests import programs  # not at the top: the process that only distributes tests would import it, too

    with programs.own_flags():
        yield
