"""How long a fresh process takes to its first training step, with nothing compiled before and with the cache.

    python -m benchmarks.compile_time [--trunks=resnet18,resnet101] [--num_erasures=4] [--json=FILE]

Each line is from two processes that share a compilation cache, empty for the first: a step of 8 images of 128x128, all
erasures carried out, then the program itself on the built-in images, from its start to the end of its first step.
docs/steps.md has the figures.
"""

import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time

from absl import flags
import jax
from minmax_jax.experiments import program as program_lib
import numpy as np

from benchmarks import all_erasures
from benchmarks import figures as figures_lib
import minmax_jax as mm
from minmax_jax.base import strict_json
from minmax_jax.models import resnet

_TRUNKS = flags.DEFINE_list("trunks", ["resnet18"], "Trunks, with the deep stem.")
_NUM_ERASURES = flags.DEFINE_list("num_erasures", ["4"], "R, one or several.")
_INSIDE = flags.DEFINE_bool("inside", False, "Be one of the fresh processes: time one trunk, print JSON.")
_IMAGES, _SIDE, _NUM_CLASSES = 8, 128, 5
_COLUMNS = ("parameters", "trace", "lower", "compile", "first_run", "next_run", "first_step")
_END_OF_FIRST_STEP = "The first step took"


def main() -> None:
    if _INSIDE.value:
        program_lib.start("")
        print(strict_json.dumps(_time_step(_TRUNKS.value[0], int(_NUM_ERASURES.value[0]))))
        return
    figures = {}
    print("| | cache | " + " | ".join(f"{name}, s" for name in _COLUMNS) + " |")
    print("|---" * (2 + len(_COLUMNS)) + "|")
    for trunk, number in itertools.product(_TRUNKS.value, map(int, _NUM_ERASURES.value)):
        name = f"{trunk}, R = {number}"
        figures[name] = _run_step(trunk, number)
        for cache, found in figures[name].items():
            row = " | ".join(f"{found[column]:.1f}" for column in _COLUMNS)
            print(f"| {name} | {cache} | {row} |", flush=True)
    program = figures["program, start to first step"] = _twice(_run_program)
    print(f"The program, from its start to the end of its first step: {program}")
    figures_lib.write(figures)


def _run_step(trunk: str, num_erasures: int) -> dict[str, dict[str, float]]:
    options = ["--inside", f"--trunks={trunk}", f"--num_erasures={num_erasures}"]
    command = [sys.executable, "-m", "benchmarks.compile_time", *options]

    def run(environment: dict[str, str], folder: str) -> dict[str, float]:
        del folder
        return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)

    return _twice(run)


def _twice(run) -> dict:
    """What `run` finds with an empty cache, and with what it left there."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        found = {}
        for name in ("empty", "filled"):
            with tempfile.TemporaryDirectory() as folder:
                found[name] = run(environment, folder)
        return found


def _run_program(environment: dict[str, str], folder: str) -> float:
    """Seconds, seen from outside, until the program tells of its first step; then it is stopped."""
    options = ["--config=configs/synthetic.py", f"--workdir={folder}/run"]
    command = [sys.executable, "-u", "-m", "experiments.train", *options]
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if _END_OF_FIRST_STEP in line:
                    return round(time.perf_counter() - start, 2)
        finally:
            process.kill()
    raise RuntimeError("The program ended before its first step.")


def _time_step(trunk: str, num_erasures: int) -> dict[str, float]:
    """Seconds of everything up to the end of the first step, and of the next."""
    times, clock = {}, time.perf_counter

    def timed(name, function, *arguments):
        start = clock()
        found = jax.block_until_ready(function(*arguments))
        times[name] = round(clock() - start, 3)
        return found

    model = mm.create_model(resnet.TRUNKS[trunk](), num_classes=_NUM_CLASSES)
    tx = mm.create_optimizer("sgd", 1e-4, weight_decay=1e-5)
    create = functools.partial(all_erasures.create_state, image_size=(_SIDE, _SIDE))
    state = timed("parameters", create, model, tx)
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, _SIDE, _SIDE, 3), np.uint8)
    batch = {"images": images, "labels": np.zeros(_IMAGES, np.int32)}
    objective = mm.Objective(erasing=mm.erasing.ErasingOptions(num_erasures=num_erasures, start_epoch=0))
    step = jax.jit(functools.partial(mm.train_step, model=model, tx=tx, objective=objective), donate_argnums=0)
    traced = timed("trace", step.trace, state, batch)
    lowered = timed("lower", traced.lower)
    compiled = timed("compile", lowered.compile)
    state, metrics = timed("first_run", compiled, state, batch)
    all_erasures.check_passes(int(metrics["num_passes"]), num_erasures)
    timed("next_run", compiled, state, batch)
    return times | {"first_step": sum(times[name] for name in ("trace", "lower", "compile", "first_run"))}


if __name__ == "__main__":
    program_lib.run(main)
