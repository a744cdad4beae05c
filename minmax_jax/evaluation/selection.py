"""Model selection: which of the validated models is tested.

Rules: "classification_error" (published); "balanced_error", the mean over classes of each one's error; "joint_error",
the mean of the classifier's and the localizer's; "smoothed_error", the mean of the last few validations; "last". The
lowest score wins, the latest among equals; a score that is no number is the worst. None of these uses masks;
"localization", the greatest mean of F1+ and F1-, does, so that its results are not those of labels alone. Other work
selects by it.
"""

from collections.abc import Sequence
import math

from minmax_jax.base import options

USES_MASKS = "localization"
RULES = ("classification_error", "balanced_error", "joint_error", "smoothed_error", "last", USES_MASKS)


def score(rule: str, validations: Sequence[dict], *, window: int = 5) -> float:
    """Score of the latest validation, lower is better; infinity where it is no number, as of F1 that is 0 / 0.

    Args:
        rule: one of `RULES`.
        validations: summaries of all validations so far, with errors and F1 in percent. A method without a localizer
            of its own has one error, which is then also the joint error.
        window: number of validations that "smoothed_error" averages.

    Raises:
        OptionError: for an unknown rule.
    """
    options.check_choice("selection", rule, RULES)
    return 0.0 if rule == "last" else worst_unless_number(_mean_of(_terms(rule, validations, window)))


def worst_unless_number(score: float | None) -> float:
    """The score, or infinity for None, as JSON has it, and NaN, which would be neither better nor worse than any."""
    return math.inf if score is None or math.isnan(score) else score


def _terms(rule: str, validations: Sequence[dict], window: int) -> list[float | None]:
    """The numbers whose mean is the score; those of a checkpoint are None where they are not finite."""
    latest = validations[-1]
    if rule == USES_MASKS:
        found = latest["f1_foreground"], latest["f1_background"]
        return [None if value is None else -value for value in found]
    if rule == "joint_error":
        return [
            latest["classification_error"],
            latest.get("localizer_classification_error", latest["classification_error"]),
        ]
    if rule == "smoothed_error":
        return [validation["classification_error"] for validation in validations[-window:]]
    return [latest[rule]]


def _mean_of(terms: Sequence[float | None]) -> float:
    return sum(math.nan if term is None else term for term in terms) / len(terms)
