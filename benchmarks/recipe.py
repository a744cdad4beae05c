"""Where the time of a whole training command goes.

    python -m benchmarks.recipe --config=configs/custom.py:NAME --config.data.dir=DIR --workdir=RUN [--json=FILE]

Runs `experiments.train` in this process and prints the seconds of each part: building the run, waiting for batches,
steps, validations, checkpoints, the first stage's features and masks for the second stage, the decoder's
training, the test with all metrics, pictures and report. Tracing and compiling are taken out of each part and stand in
a line of their own, with the number of programs. docs/performance.md has the figures.
"""

import collections
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import time
from typing import Any
from unittest import mock

from absl import flags
import jax
from minmax_jax.configs import common
from minmax_jax.experiments import program as program_lib
from ml_collections import config_flags

from benchmarks import figures as figures_lib
from minmax_jax.refinement import cache, decoder_training
from minmax_jax.runs import final_test, training
from minmax_jax.runs.building import data_splits, fields
from minmax_jax.runs.building import run as run_lib
from minmax_jax.runs.drawing import pictures
from minmax_jax.runs.folder import checkpoints

_CONFIG = config_flags.DEFINE_config_file("config", None, "As of experiments.train.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, a new one.")
flags.mark_flags_as_required(["config", "workdir"])

COMPILING = "tracing and compiling"
# Events of JAX, in seconds: a cached program is read in the last.
_COMPILE_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
# Parts by the functions that do them, as the module that calls each of them names it.
_PARTS = {
    "building the run": [(training, "build_run")],
    "checkpoints": [
        (checkpoints.Checkpoints, name) for name in ("save", "wait", "restore", "restore_newest", "set_aside_after")
    ],
    "validations": [(training, "_validate")],
    "first stage's masks and features": [(cache, "collect")],
    "decoder's training": [(decoder_training, "train")],
    "test": [(final_test, "evaluate_model")],
    "pictures": [(pictures, "draw")],
    "report": [(pictures, "write_report")],
}


@dataclasses.dataclass
class Clock:
    """Seconds by part; what runs within a part belongs to it, but for compiling.

    Attributes:
        seconds: by part.
        programs: number of compiled programs.
        large: those of them that took a second or more to compile, or to read from the cache.
    """

    seconds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    programs: int = 0
    large: int = 0
    part: str = ""

    @contextlib.contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Counts the seconds of a block, unless it runs within another part."""
        if self.part:
            yield
            return
        self.part, start = part, time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start
            self.part = ""

    def wrap(self, part: str, function: Callable[..., Any], *, is_waited_for: bool = False) -> Callable[..., Any]:
        """The function, with its time counted."""

        @functools.wraps(function)
        def timed(*args, **kwargs):
            with self.time(part):
                found = function(*args, **kwargs)
                return jax.block_until_ready(found) if is_waited_for else found

        return timed

    def count_event(self, name: str, seconds: float, **kwargs: Any) -> None:
        """Takes the time of an event of JAX from its part."""
        if name not in _COMPILE_EVENTS:
            return
        self.seconds[COMPILING] += seconds
        if self.part:
            self.seconds[self.part] -= seconds
        if name == _COMPILE_EVENTS[-1]:
            self.programs += 1
            self.large += seconds >= 1


def main() -> None:
    fields.check_fields(_CONFIG.value, common.get_config())
    program_lib.start()
    clock, start = Clock(), time.perf_counter()
    jax.monitoring.register_event_duration_secs_listener(clock.count_event)
    with contextlib.ExitStack() as stack:
        for part, functions in _PARTS.items():
            for owner, name in functions:
                stack.enter_context(mock.patch.object(owner, name, clock.wrap(part, getattr(owner, name))))
        _time_steps(clock, stack)
        training.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    seconds = dict(clock.seconds)
    total = time.perf_counter() - start
    seconds["everything else"] = total - sum(seconds.values())
    for part, value in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"| {part} | {value:.1f} | {value / total:.0%} |")
    print(f"| total | {total:.1f} | 100% |")
    print(f"{clock.programs} programs compiled or read, {clock.large} of them in a second or more.")
    figures = {"seconds": seconds, "total": total, "programs": clock.programs, "large_programs": clock.large}
    figures_lib.write(figures)


def _time_steps(clock: Clock, stack: contextlib.ExitStack) -> None:
    """Times each step, and each wait for its batch."""
    build, create = training.build_run, data_splits.create_train_batches

    def build_run(*args, **kwargs) -> run_lib.Run:
        run = build(*args, **kwargs)
        return dataclasses.replace(run, train_step=clock.wrap("steps", run.train_step, is_waited_for=True))

    def create_train_batches(*args, **kwargs) -> Iterator[dict]:
        batches = create(*args, **kwargs)
        return iter(clock.wrap("waiting for batches", lambda: next(batches)), None)

    stack.enter_context(mock.patch.object(training, "build_run", build_run))
    stack.enter_context(mock.patch.object(data_splits, "create_train_batches", create_train_batches))


if __name__ == "__main__":
    program_lib.run(main)
