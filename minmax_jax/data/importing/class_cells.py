"""Names of classes that are probably lists of several: an image has one class."""

import ast
from collections.abc import Collection
import json
import logging
import re
from typing import Any

logger = logging.getLogger(__name__)
_SEPARATORS = re.compile(r"[;|,\t\n]")
# Also in names of one class: "n/a", "black & white", "sea lion". Lists only where all parts are classes elsewhere.
_RARE_SEPARATORS = re.compile("[/+&]")
_MAX_NAMED = 5
ADVICE = (
    "An image has one class, what it mainly shows; several labels of an image are not supported. Keep one of them, or"
    " leave the image out."
)


def explain(name: str, known: Collection[str]) -> str:
    """Why a name is no class but a list, such as `["cat", "dog"]`, or classes that others have alone; "" for a class.

    A name may hold a separator, as in "spruce, Norway".

    Args:
        name: of a class.
        known: names of all classes.
    """
    if (found := _as_list(name)) is not None:
        if len(found) == 1:
            return f"The class {name!r} is a list of one label. Write the label alone: {next(iter(found))}"
        return f"The class {name!r} lists {len(found)} labels. {ADVICE}"
    for separators in (_SEPARATORS, _RARE_SEPARATORS):
        parts = _parts(name, separators)
        if len(parts) > 1 and set(parts) <= set(known):
            return f"The class {name!r} lists {len(parts)} labels. {ADVICE}"
    return ""


def _as_list(name: str) -> Collection[Any] | None:
    """A list as JSON or Python write it, or of words in brackets; None for other text."""
    if name[:1] not in ("[", "{", "("):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(name)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, (list, tuple, set, dict)) else None
    parts = _parts(name[1:-1], _SEPARATORS) if name[0] + name[-1] in ("[]", "{}") else []
    return parts if len(parts) > 1 else None


def _parts(name: str, separators: re.Pattern) -> list[str]:
    return [part.strip() for part in separators.split(name) if part.strip()]


def warn(known: Collection[str]) -> None:
    """Warns of names with a separator that are read as one class."""
    suspects = [repr(name) for name in sorted(known) if _may_be_several(name, known)]
    if suspects:
        logger.warning(
            "%d of %d classes are read as one class each, though their names have separators: %s%s. If they list"
            " several: %s",
            *(len(suspects), len(known), ", ".join(suspects[:_MAX_NAMED])),
            *(" and others" if len(suspects) > _MAX_NAMED else "", ADVICE),
        )


def _may_be_several(name: str, known: Collection[str]) -> bool:
    words = name.split()
    return len(_parts(name, _SEPARATORS)) > 1 or (len(words) > 1 and set(words) <= set(known))
