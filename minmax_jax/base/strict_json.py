"""JSON that every reader takes: a number that is not finite becomes null, which JSON has no other value for."""

from collections.abc import Mapping
import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """The value with None for each NaN and infinity in it, of mappings, lists and tuples at any depth."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps` of the `finite` value.

    Args:
        value: of JSON's types, and tuples.
        **options: of `json.dumps`.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)  # takes a fifth of the time for long lists
    except (ValueError, TypeError):
        return json.dumps(finite(value), allow_nan=False, **options)


def plain(value: Any) -> Any:
    """The value as it is read again from JSON: tuples are lists."""
    return json.loads(dumps(value))
