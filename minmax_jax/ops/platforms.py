"""The one choice between forms of an operation by platform."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
from typing import Any

import jax
from jax import lax

_for_any = contextvars.ContextVar("for_any", default=False)


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
    return jax.default_backend() == "cpu" and not _for_any.get()


@contextlib.contextmanager
def for_any() -> Iterator[None]:
    """Lets what is traced inside be lowered for any platform where there are only CPUs, too."""
    jax.clear_caches()  # of functions inside of functions, which may have been traced for CPUs before
    token = _for_any.set(True)
    try:
        yield
    finally:
        _for_any.reset(token)
