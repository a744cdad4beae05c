"""What the compilers of TPUs and GPUs make of a training step; no such machine is needed.

    python -m benchmarks.accelerators --chip=v5e --trunk=resnet101 --size=480 [--dtype=bfloat16] [--json=FILE]

Needs the compiler of the chip, `pip install -e '.[tpu]'` or `'.[cuda12]'`, and for ResNet-101 on a TPU patience. One
device, or with --devices a pmap over several. It tells what the step keeps in a device's memory, in which precision it
convolves, what the devices exchange, which large arrays it transposes, and of a GPU what moves through the memory; not
how long it takes: only a chip can. docs/notes/cpu_kernels.md has the figures.
"""

import collections
import functools
import importlib.metadata
import math
import os
import re
import time

from absl import flags
import jax
from jax.experimental import topologies
import jax.numpy as jnp
from minmax_jax.experiments import program
import numpy as np

from benchmarks import figures as figures_lib
from benchmarks import traffic
import minmax_jax as mm
from minmax_jax.distributed import devices as devices_lib
from minmax_jax.distributed import pmap
from minmax_jax.models import resnet
from minmax_jax.ops import platforms

_CHIP = flags.DEFINE_enum("chip", "v5e", ["v5e", "h100"], "What to compile for.")
_DEVICES = flags.DEFINE_enum("devices", "1", ["1", "4"], "That share a step.")
_TRUNK = flags.DEFINE_enum("trunk", "resnet18", list(resnet.TRUNKS), "Trunk, with the deep stem.")
_SIZE = flags.DEFINE_integer("size", 480, "Pixels, height and width.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images of each device.", 1)
_NUM_ERASURES = flags.DEFINE_integer("num_erasures", 4, "R.", 0)
_ACCUMULATION = flags.DEFINE_integer("accumulation", 1, "Micro-batches.", 1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the computation.")
_NUM_CLASSES = 2
_LARGE = 2**20  # numbers of an array whose transposition is reported
_PLATFORMS = {"v5e": "tpu", "h100": "cuda"}
_EXTRAS = {"v5e": "tpu", "h100": "cuda12"}  # that install the compilers
# Device properties of an H100 SXM (NVIDIA, H100 data sheet and CUDA programming guide, compute capability 9.0).
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000 device_memory_size: 84978434048 l2_cache_size: 52428800
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Choosing algorithms by trying them would need the chip.
_OPTIONS = {"v5e": {}, "h100": {"xla_gpu_autotune_level": "0"}}


def main() -> None:
    program.start(keeps_compiled=False)  # what is compiled without a chip cannot be read from the cache
    start = time.perf_counter()
    compiled = _compile(_find_devices())
    asked = (_CHIP, _DEVICES, _TRUNK, _SIZE, _BATCH_SIZE, _NUM_ERASURES, _ACCUMULATION, _DTYPE)
    figures = {flag.name: flag.value for flag in asked}
    figures["compile_seconds"] = round(time.perf_counter() - start, 1)
    memory = compiled.memory_analysis()
    figures["peak_mib"] = round(memory.peak_memory_in_bytes / 2**20, 1)
    figures["kept_mib"] = round(memory.temp_size_in_bytes / 2**20, 1)
    text = compiled.as_text()
    figures |= read_program(text)
    if _CHIP.value == "h100":
        figures |= traffic.read(text, passes=max(1, _NUM_ERASURES.value))
    for name, value in figures.items():
        print(f"{name:<18}{value}")
    figures_lib.write(figures)


def _find_devices():
    """Devices that can be compiled for.

    Raises:
        ModuleNotFoundError: if the compiler is not installed.
    """
    platform = _PLATFORMS[_CHIP.value]
    pattern = {"tpu": r"libtpu", "cuda": r"jax-cuda\d+-pjrt"}[platform]
    if not any(re.fullmatch(pattern, package.name) for package in importlib.metadata.distributions()):
        extra = _EXTRAS[_CHIP.value]
        raise ModuleNotFoundError(f"--chip={_CHIP.value} needs its compiler: pip install -e '.[{extra}]'.")
    if _CHIP.value == "h100":
        shape = f"1x1x{_DEVICES.value}"
        return topologies.get_topology_desc(platform="cuda", target_config=_H100, topology=shape).devices
    return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[: int(_DEVICES.value)]


def _compile(devices):
    dtype = jnp.dtype(_DTYPE.value)
    model = mm.create_model(
        resnet.TRUNKS[_TRUNK.value](dtype=dtype),
        num_classes=_NUM_CLASSES,
        head=functools.partial(mm.heads.WildcatHead, dtype=dtype),
    )
    tx = mm.create_optimizer("sgd", 1e-3, weight_decay=1e-5)
    create = functools.partial(mm.create_train_state, model=model, tx=tx, image_size=(_SIZE.value, _SIZE.value))
    objective = mm.Objective(erasing=mm.erasing.ErasingOptions(num_erasures=_NUM_ERASURES.value, start_epoch=0))
    step = functools.partial(mm.train_step, model=model, tx=tx, objective=objective, accumulation=_ACCUMULATION.value)
    mesh = jax.sharding.Mesh(np.array(devices), (devices_lib.AXIS,))
    images = (len(devices), _BATCH_SIZE.value, _SIZE.value, _SIZE.value, 3)
    batch = {
        "images": _shape(mesh, images, jnp.uint8, devices_lib.AXIS),
        "labels": _shape(mesh, images[:2], jnp.int32, devices_lib.AXIS),
    }
    with platforms.for_target(_PLATFORMS[_CHIP.value]):
        state = jax.eval_shape(create, jax.random.key(0))
        state = jax.tree.map(lambda leaf: _shape(mesh, leaf.shape, leaf.dtype), state)
        lowered = pmap.pmap_train_step(step, devices=devices).lower(state, batch)
    return lowered.compile(compiler_options=_OPTIONS[_CHIP.value])


def _shape(mesh, shape, dtype, *axes: str) -> jax.ShapeDtypeStruct:
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def read_program(text: str) -> dict:
    """What a compiled program, in XLA's words, convolves, exchanges and transposes."""
    convolutions, transposed, exchanged = collections.Counter(), collections.Counter(), []
    for line in text.splitlines():
        found = re.search(r" = (\(.*?\)|\S+) ([a-z\-]+)\(", line)
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", found[1]) if found else []
        if not arrays:
            continue
        dtype, dims = arrays[0]
        if found[2] == "convolution" or "__cudnn$conv" in line:
            convolutions[dtype] += 1
        elif found[2] in ("all-reduce", "all-reduce-start"):
            exchanged.append(traffic.count_bytes(found[1]))
        elif found[2] == "transpose" and math.prod(map(int, dims.split(","))) >= _LARGE:
            transposed[f"{dtype}[{dims}]"] += 1
    return {
        "convolutions": dict(convolutions),
        "all_reduces": len(exchanged),
        "exchanged_mb": round(sum(exchanged) / 1e6, 2),
        "large_transposes": dict(transposed),
    }


if __name__ == "__main__":
    # No chip is looked for, neither here nor in the neighbourhood.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    jax.config.update("jax_platforms", "cpu")
    program.run(main)
