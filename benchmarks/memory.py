"""What a training step keeps in memory: by the compiler's count, and measured, also of PyTorch.

    python -m benchmarks.memory [--side=320] [--json=FILE]
    python -m benchmarks.memory --measured --side=128 [--json=FILE]

ResNet-18, 8 images, two classes, on the devices at hand. The first table counts what the compiled step keeps besides
its arguments and results: with gradient accumulation, and with `model.remat`. The second, on Linux and a CPU, measures
by how much the resident memory of a fresh process rises in its third step; PyTorch needs the extra `[torch]`.
docs/scale.md and docs/steps.md have the figures.
"""

import ctypes
import functools
import gc
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

from absl import flags
import jax
import jax.numpy as jnp
from minmax_jax.experiments import program
import numpy as np

from benchmarks import all_erasures
from benchmarks import figures as figures_lib
import minmax_jax as mm
from minmax_jax.models import resnet

_SIDE = flags.DEFINE_integer("side", 320, "Pixels, height and width.", 32)
_NUM_ERASURES = flags.DEFINE_list("num_erasures", ["0", "1", "4"], "R, one or several.")
_MEASURED = flags.DEFINE_bool("measured", False, "Measure, instead of asking the compiler.")
_INSIDE = flags.DEFINE_string("inside", "", "Be one of the fresh processes, for this side: print MiB.")
_IMAGES, _NUM_CLASSES = 8, 2
_VARIANTS = {
    "accumulation 1": {},
    "accumulation 2": {"accumulation": 2},
    "accumulation 4": {"accumulation": 4},
    "remat": {"remat": True},
}


def main() -> None:
    if _INSIDE.value:
        print(_rise_of_a_step(_create_run(_INSIDE.value, int(_NUM_ERASURES.value[0]))))
        return
    program.start()
    sides = {name: functools.partial(compiled_mib, **options) for name, options in _VARIANTS.items()}
    if _MEASURED.value:
        names = ["minmax_jax"] + ["torch"] * (importlib.util.find_spec("torch") is not None)
        sides = {name: functools.partial(_measure, name) for name in names}
    figures = {}
    print("| R | " + " | ".join(f"{name}, MiB" for name in sides) + " |")
    print("|---" * (1 + len(sides)) + "|")
    for number in map(int, _NUM_ERASURES.value):
        row = figures[f"R = {number}"] = {name: round(side(number), 1) for name, side in sides.items()}
        print(f"| {number} | " + " | ".join(f"{size:.0f}" for size in row.values()) + " |", flush=True)
    figures_lib.write({"side": _SIDE.value, "mib": figures})


def _create_step(num_erasures: int, accumulation: int = 1, remat: bool = False):
    """(compiled to be, state)."""
    model = mm.create_model(resnet.resnet18(remat=remat), num_classes=_NUM_CLASSES)
    tx = mm.create_optimizer("sgd", 1e-4)
    state = all_erasures.create_state(model, tx, image_size=(64, 64), shared_statistics=True)
    objective = mm.Objective(
        mask=mm.masks.MaskOptions(normalization="batch"),
        erasing=mm.erasing.ErasingOptions(num_erasures=num_erasures, start_epoch=0),
    )
    step = functools.partial(mm.train_step, model=model, tx=tx, objective=objective, accumulation=accumulation)
    return jax.jit(step, donate_argnums=0), state


def compiled_mib(num_erasures: int, *, accumulation: int = 1, remat: bool = False) -> float:
    """Of all that a step keeps besides its arguments and results."""
    step, state = _create_step(num_erasures, accumulation, remat)
    batch = {
        "images": jax.ShapeDtypeStruct((_IMAGES, _SIDE.value, _SIDE.value, 3), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((_IMAGES,), jnp.int32),
    }
    options = all_erasures.KEEP_BARRIERS if remat and jax.default_backend() == "cpu" else None
    compiled = step.lower(state, batch).compile(compiler_options=options)
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def _measure(side: str, num_erasures: int) -> float:
    options = [f"--inside={side}", f"--num_erasures={num_erasures}", f"--side={_SIDE.value}"]
    command = [sys.executable, "-m", "benchmarks.memory", *options]
    # So that freed arrays go back to the system, on both sides.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_TRIM_THRESHOLD_": "0"}
    return float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def _create_run(side: str, num_erasures: int):
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, _SIDE.value, _SIDE.value, 3), np.uint8)
    if side == "torch":
        return _create_torch_run(images, num_erasures)
    program.start()
    step, state = _create_step(num_erasures)
    batch = {"images": images, "labels": np.zeros(_IMAGES, np.int32)}

    def run() -> int:
        nonlocal state
        state, metrics = jax.block_until_ready(step(state, batch))
        return int(metrics["num_passes"])

    return run


def _create_torch_run(images, num_erasures: int):
    import torch

    from benchmarks import torch_net, torch_peer

    net = torch_net.MinMaxNet(_NUM_CLASSES).train()
    with torch.no_grad():
        net.headseg.to_modalities.bias[: net.headseg.modalities] = all_erasures.BIAS
    optimizer = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9, weight_decay=1e-5, nesterov=True)
    given, labels = torch_net.from_uint8(images), torch.zeros(_IMAGES, dtype=torch.long)

    def run() -> int:
        found = torch_peer.train_step(net, optimizer, given, labels, num_erasures=num_erasures)
        optimizer.zero_grad()  # Gradients are of the step, as on the other side, not of what was there before.
        return found.num_passes

    return run


def _rise_of_a_step(run) -> float:
    """MiB by which the maximum resident memory of a step lies above that before it."""
    passes = [run(), run()]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # The maximum so far is now that of this moment.
    before = _status_kib("VmRSS")
    passes.append(run())
    for num_passes in passes:
        all_erasures.check_passes(num_passes, int(_NUM_ERASURES.value[0]))
    return (_status_kib("VmHWM") - before) / 2**10


def _status_kib(name: str) -> int:
    return int(re.search(rf"{name}:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    program.run(main)
