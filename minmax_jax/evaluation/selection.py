"""Which of the validated models is tested. No rule sees a mask.

Rules: "classification_error" (published), "joint_error", the mean of the classifier's and the localizer's,
"smoothed_error", the mean of the last few validations, and "last". The lowest score wins, the latest among equals.
"""

from collections.abc import Sequence

RULES = ("classification_error", "joint_error", "smoothed_error", "last")


def score(rule: str, validations: Sequence[dict], *, window: int = 5) -> float:
    """Score of the latest validation, lower is better.

    Args:
        rule: one of `RULES`.
        validations: summaries of all so far, each with the errors of classifier and localizer in percent.
        window: validations that "smoothed_error" averages.

    Raises:
        ValueError: for an unknown rule.
    """
    latest = validations[-1]
    if rule == "classification_error":
        return latest["classification_error"]
    if rule == "joint_error":
        return (latest["classification_error"] + latest["localizer_classification_error"]) / 2
    if rule == "smoothed_error":
        errors = [validation["classification_error"] for validation in validations[-window:]]
        return sum(errors) / len(errors)
    if rule == "last":
        return 0.0
    raise ValueError(f"Selection rule {rule!r} must be one of {RULES}.")
