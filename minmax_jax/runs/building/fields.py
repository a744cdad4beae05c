"""The fields of a configuration by dotted name, and whether they are those of configs/common.py."""

import difflib
from typing import Any

import ml_collections

from minmax_jax.base.errors import ConfigError
from minmax_jax.runs.building import deleted_fields


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """All fields by dotted name, with values as JSON writes them (tuples as lists)."""

    def visit(node, prefix):
        for key, value in sorted(node.items()):
            if isinstance(value, (ml_collections.ConfigDict, dict)):
                yield from visit(value, f"{prefix}{key}.")
            else:
                yield prefix + key, list(value) if isinstance(value, (tuple, list)) else value

    return dict(visit(config, ""))


def check_fields(config: ml_collections.ConfigDict, reference: ml_collections.ConfigDict) -> None:
    """Compares names and types with those of a complete configuration.

    Raises:
        ConfigError: naming every missing or unknown field and every value of another type.
    """
    given, known = flatten(config), flatten(reference)
    scalars = {name for name in given.keys() - known.keys() if any(other.startswith(f"{name}.") for other in known)}
    problems = [f"config.{name}={given[name]!r} is no group of fields" for name in sorted(scalars)]
    problems += [
        f"config.{name} is missing; its default is {known[name]!r}"
        for name in sorted(known.keys() - given.keys())
        if not any(name.startswith(f"{group}.") for group in scalars)
    ]
    for name in sorted(given.keys() - known.keys() - scalars):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean config.{close[0]}?" if close else ""
        problems.append(deleted_fields.explain(name) or f"config.{name} is not a field{hint}")
    for name in sorted(given.keys() & known.keys()):
        expected, value = type(known[name]), given[name]
        # An integer is accepted for a float; True is not accepted for 1.
        if type(value) is not expected and not (expected is float and type(value) is int):
            problems.append(f"config.{name}={value!r} is {_describe(type(value))}, not {_describe(expected)}")
    if problems:
        raise ConfigError("\n".join(problems))


def _describe(kind: type) -> str:
    """Such as "an int"; of a sequence, as configs/common.py writes it."""
    name = "tuple" if kind is list else kind.__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
