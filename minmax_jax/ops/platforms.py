"""The one choice between forms of an operation by platform."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def choose(*operands: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """What `cpu` gives for the operands on a CPU, and `default` elsewhere.

    A program of a process that has nothing but CPUs holds the form for CPUs alone, so that it is traced in half the
    time. Any other holds both: `lax.platform_dependent` chooses when it is lowered.
    """
    if jax.default_backend() == "cpu":
        return cpu(*operands)
    return lax.platform_dependent(*operands, cpu=cpu, default=default)
