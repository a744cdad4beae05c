"""Four fake devices, one compilation cache, and tests that need data which is not everywhere."""

import itertools
import os
import pathlib

# Unoptimised machine code: the networks here take longer to compile than to run.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
)

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.runs.drawing import pictures

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items):
    """Deselects tests that need ../shared where it does not exist."""
    if not SHARED.exists():
        items[:] = [item for item in items if "shared" not in item.keywords]


@pytest.fixture
def shared():
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """One cache for all workers and for the programs that they start."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


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
    others = {
        module: list(found)
        for module, found in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith(("benchmarks.", "minmax_jax.experiments.")) and not module.endswith(".program")
    }
    for flag in itertools.chain.from_iterable(others.values()):
        delattr(flags.FLAGS, flag.name)
    yield
    for module, found in others.items():
        for flag in found:
            flags.DEFINE_flag(flag, module_name=module)
