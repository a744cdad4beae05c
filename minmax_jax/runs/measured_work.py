"""Seconds of work that is repeated, apart from those of tracing and compiling it."""

from collections.abc import Callable, Iterator
import contextlib
import time
from typing import Any, NamedTuple

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"  # compiled, or read from the cache
_READ = "/jax/compilation_cache/cache_retrieval_time_sec"


class Duration(NamedTuple):
    """Seconds of repeated work.

    Attributes:
        each: of one repetition.
        first: that the first repetition takes longer, for tracing and compiling.
        kept: of these, the seconds of compiling programs that are now in JAX's compilation cache.
    """

    each: float
    first: float
    kept: float


def measure(work: Callable[[], Any], *, repetitions: int) -> Duration:
    """Does the work once more than `repetitions`, and takes the time of each.

    Args:
        work: waits until everything is computed.
        repetitions: after the first, which compiles.
    """
    with counting_kept() as kept:
        times = [time.perf_counter()]
        for _ in range(1 + repetitions):
            work()
            times.append(time.perf_counter())
    each = (times[-1] - times[1]) / repetitions
    first = max(0.0, times[1] - times[0] - each)
    return Duration(each, first, min(first, kept()))


@contextlib.contextmanager
def counting_kept() -> Iterator[Callable[[], float]]:
    """Yields a function that says how many seconds of compiling this block saves the next process.

    These are of programs that are compiled and written to the compilation cache; those that are read from it save
    nothing.
    """
    config, found = jax.config, []
    is_on = config.jax_enable_compilation_cache and bool(config.jax_compilation_cache_dir)

    def count(name: str, seconds: float, **_: Any) -> None:
        if name == _COMPILED and is_on and seconds >= config.jax_persistent_cache_min_compile_time_secs:
            found.append(seconds)
        elif name == _READ:
            found.append(-seconds)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield lambda: max(0.0, sum(found))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
