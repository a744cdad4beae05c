"""The one choice between forms of an operation by platform."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
from typing import Any

import jax
from jax import lax

_PORTABLE = "portable"
_target = contextvars.ContextVar("target", default=None)


def choose(*operands: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """The result of `cpu` on a CPU, and of `default` elsewhere.

    In a process that has only CPUs, programs contain the form for CPUs alone, so that they are traced in half the time.
    Otherwise they contain both, and `lax.platform_dependent` chooses when they are lowered.

    Args:
        *operands: arrays, the arguments of both functions.
        cpu: the function for CPUs.
        default: the function for all other platforms.
    """
    if is_portable():
        return default(*operands)
    if is_cpu_alone():
        return cpu(*operands)
    return lax.platform_dependent(*operands, cpu=cpu, default=default)


def is_portable() -> bool:
    """Whether the current trace is for export: every operation takes XLA's own form."""
    return _target.get() == _PORTABLE


def is_cpu_alone() -> bool:
    """Whether the current trace will run on CPUs only, with the kernels of this library."""
    return jax.default_backend() == "cpu" and _target.get() is None


def is_gpu() -> bool:
    """Whether the current trace will run on GPUs."""
    return (_target.get() or jax.default_backend()) in ("gpu", "cuda", "rocm")


def is_tpu() -> bool:
    """Whether the current trace will run on TPUs."""
    return (_target.get() or jax.default_backend()) == "tpu"


def for_target(platform: str) -> contextlib.AbstractContextManager[None]:
    """Traces inside are for "cuda", "rocm" or "tpu", also where there are only CPUs."""
    return _tracing_for(platform)


def portable() -> contextlib.AbstractContextManager[None]:
    """Traces inside use XLA's plain form of every operation, so that they can be exported.

    Custom calls, as of the kernels for CPUs, carry no compatibility guarantee and are refused by `jax.export`. The
    epilogue of a convolution is applied outside of `flax.linen.Conv`, which exporters replace by a module of their own.
    The batch may be symbolic.
    """
    return _tracing_for(_PORTABLE)


@contextlib.contextmanager
def _tracing_for(target: str) -> Iterator[None]:
    jax.clear_caches()  # Inner functions may have been traced for another target.
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)
        jax.clear_caches()
