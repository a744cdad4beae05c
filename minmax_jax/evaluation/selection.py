"""Model selection: which of the validated models is tested.

Rules: "classification_error" (published); "balanced_error", the mean over classes of each one's error; "last". The
lowest score wins, the latest among equals; a score that is no number is the worst. None of these uses masks;
"localization", the maximum mean of F1+ and F1-, does, so that its results are not those of labels alone. Other work
selects by it.
"""

from collections.abc import Mapping
import math
from typing import Any

from minmax_jax.base import options

USES_MASKS = "localization"
RULES = ("classification_error", "balanced_error", "last", USES_MASKS)


def score(rule: str, validation: Mapping[str, Any]) -> float:
    """Score of a validation, lower is better; infinity where it is no number, as of F1 that is 0 / 0.

    Args:
        rule: one of `RULES`.
        validation: its summary, with errors and F1 in percent.

    Raises:
        OptionError: for an unknown rule.
    """
    options.check_choice("selection", rule, RULES)
    if rule == "last":
        return 0.0
    if rule != USES_MASKS:
        return worst_unless_number(validation[rule])
    found = validation["f1_foreground"], validation["f1_background"]
    return math.inf if None in found else worst_unless_number(-sum(found) / 2)


def worst_unless_number(score: float | None) -> float:
    """The score, or infinity for None, as JSON has it, and NaN, which would be neither better nor worse than any."""
    return math.inf if score is None or math.isnan(score) else score
