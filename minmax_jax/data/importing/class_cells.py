"""Names of classes that are probably lists of several: an image has one class."""

import ast
from collections.abc import Collection
import logging
import re

logger = logging.getLogger(__name__)
_SEPARATORS = re.compile("[;|,]")
_MOST_NAMED = 5
ADVICE = (
    "An image has one class, what it mainly shows; several labels of an image are not supported. Keep one of them, or"
    " leave the image out."
)


def several(name: str, known: Collection[str]) -> list[str]:
    """The classes that a name lists: of a list such as `["cat", "dog"]`, or if all parts are classes elsewhere.

    A name may hold a separator, as in "spruce, Norway".

    Args:
        name: of a class.
        known: names of all classes.

    Returns:
        The listed classes; [] for one class.
    """
    if name[:1] in ("[", "{", "("):
        try:
            found = ast.literal_eval(name)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
        if isinstance(found, (list, tuple, set, dict)):
            return [str(part) for part in found] or [name]
    parts = _parts(name)
    return parts if len(parts) > 1 and set(parts) <= set(known) else []


def _parts(name: str) -> list[str]:
    return [part.strip() for part in _SEPARATORS.split(name) if part.strip()]


def warn(known: Collection[str]) -> None:
    """Warns of names with a separator that are read as one class."""
    suspects = [repr(name) for name in sorted(known) if len(_parts(name)) > 1]
    if suspects:
        logger.warning(
            "%d classes have a separator in their name and are read as one class each: %s%s. If they list several: %s",
            *(len(suspects), ", ".join(suspects[:_MOST_NAMED])),
            *(" and others" if len(suspects) > _MOST_NAMED else "", ADVICE),
        )
