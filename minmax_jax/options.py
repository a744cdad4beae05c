"""Checks of option values: each error names the field, its value and what it must be."""

from collections.abc import Collection
import math
from typing import Any

from minmax_jax.errors import OptionError


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raises OptionError unless the value is one of the choices."""
    if value not in choices:
        raise OptionError(f"{name}={value!r} must be one of {tuple(choices)}.")


def check_range(name: str, value: float, least: float, greatest: float = math.inf) -> None:
    """Raises OptionError unless the value is from `least` to `greatest`, both allowed; NaN is refused."""
    if not least <= value <= greatest:
        upper = f"from {least} to {greatest}" if greatest < math.inf else f"at least {least}"
        raise OptionError(f"{name}={value!r} must be {upper}.")
