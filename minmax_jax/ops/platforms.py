"""The one choice between forms of an operation by platform."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
from typing import Any

import jax
from jax import lax

_target = contextvars.ContextVar("target", default=None)


def choose(*operands: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """What `cpu` gives for the operands on a CPU, and `default` elsewhere.

    A program of a process that has nothing but CPUs holds the form for CPUs alone, so that it is traced in half the
    time. Any other holds both: `lax.platform_dependent` chooses when it is lowered.
    """
    if is_cpu_alone():
        return cpu(*operands)
    return lax.platform_dependent(*operands, cpu=cpu, default=default)


def is_cpu_alone() -> bool:
    """Whether what is traced now will run on CPUs only."""
    return jax.default_backend() == "cpu" and _target.get() is None


def is_gpu() -> bool:
    """Whether what is traced now will run on GPUs."""
    return (_target.get() or jax.default_backend()) in ("gpu", "cuda", "rocm")


def is_tpu() -> bool:
    """Whether what is traced now will run on TPUs."""
    return (_target.get() or jax.default_backend()) == "tpu"


@contextlib.contextmanager
def for_target(platform: str) -> Iterator[None]:
    """Lets what is traced inside be lowered for "cuda", "rocm" or "tpu" where there are only CPUs, too."""
    jax.clear_caches()  # What was traced for one platform, as functions inside of functions are, is not for another.
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
        jax.clear_caches()
