"""Checks of option values: each error names the field, its value and what it must be."""

from collections.abc import Collection, Sequence
import math
from typing import Any

from minmax_jax.base.errors import OptionError


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raises OptionError unless the value is one of the choices.

    Args:
        name: of the option.
        value: the given value.
        choices: the allowed values.
    """
    if value not in choices:
        raise OptionError(f"{name}={value!r} must be one of {tuple(choices)}.")


def check_range(name: str, value: float, minimum: float, maximum: float = math.inf) -> None:
    """Raises OptionError unless the value is from `minimum` to `maximum`, both allowed; NaN is refused.

    Args:
        name: of the option.
        value: the given number.
        minimum: the minimum allowed number.
        maximum: the maximum allowed number.
    """
    if problem := _out_of_range(name, value, minimum, maximum):
        raise OptionError(problem)


def _out_of_range(name: str, value: float, minimum: float, maximum: float, *, or_zero: bool = False) -> str:
    """The message of a number that is out of its range; "" of another one."""
    if minimum <= value <= maximum or (or_zero and value == 0):
        return ""
    upper = f"from {minimum} to {maximum}" if maximum < math.inf else f"at least {minimum}"
    return f"{name}={value!r} must be {upper}{', or 0' if or_zero else ''}."


def check_numbers(
    name: str,
    values: Sequence[float],
    minimum: float,
    maximum: float = math.inf,
    *,
    count: int | None = None,
    whole: bool = False,
) -> None:
    """Raises OptionError unless the values are numbers from `minimum` to `maximum`.

    Args:
        name: of the option.
        values: a sequence of any values.
        minimum: allowed.
        maximum: allowed.
        count: how many there must be; None: any number of them.
        whole: whether fractions are refused.
    """
    kind = int if whole else int | float
    are_right = all(type(value) is not bool and isinstance(value, kind) for value in values)
    if not are_right or not all(minimum <= value <= maximum for value in values) or count not in (None, len(values)):
        what = "" if count is None else f"{count} "
        upper = f"from {minimum} to {maximum}" if maximum < math.inf else f"of at least {minimum}"
        raise OptionError(f"{name}={values!r} must be {what}{'whole ' if whole else ''}numbers {upper}.")


def check_ranges(options: Any, *, or_zero: Collection[str] = (), **limits: tuple[float, float]) -> None:
    """Raises one OptionError for all attributes that are out of their range.

    Args:
        options: has the attributes.
        or_zero: names of the attributes that may be 0 as well, for "no value".
        **limits: minimum and maximum of each attribute by its name, both allowed; NaN is refused.
    """
    checked = (
        _out_of_range(name, getattr(options, name), *limits_of_one, or_zero=name in or_zero)
        for name, limits_of_one in limits.items()
    )
    if problems := [problem for problem in checked if problem]:
        raise OptionError(*problems)


def check_sizes(name: str, sizes: Sequence[float]) -> None:
    """Raises OptionError unless these are sizes of an image, as shares from 0.1 to 8, at least one."""
    if not sizes:
        raise OptionError(f"{name}={sizes!r} must name at least one size, such as 1.0.")
    check_numbers(name, sizes, 0.1, 8)
