"""Model selection: which of the validated models is tested.

Rules: "classification_error" (published); "joint_error", the mean of the classifier's and the localizer's;
"smoothed_error", the mean of the last few validations; "last". The lowest score wins, the latest among equals. None of
these uses masks; "localization", the greatest mean of F1+ and F1-, does, so that its results are not those of labels
alone. Other work selects by it.
"""

from collections.abc import Sequence

from minmax_jax import options

USES_MASKS = "localization"
RULES = ("classification_error", "joint_error", "smoothed_error", "last", USES_MASKS)


def score(rule: str, validations: Sequence[dict], *, window: int = 5) -> float:
    """Score of the latest validation, lower is better.

    Args:
        rule: one of `RULES`.
        validations: summaries of all validations so far, with errors and F1 in percent. A method without a localizer
            of its own has one error, which is then also the joint error.
        window: number of validations that "smoothed_error" averages.

    Raises:
        OptionError: for an unknown rule.
    """
    options.check_choice("selection", rule, RULES)
    if rule == USES_MASKS:
        return -(validations[-1]["f1_foreground"] + validations[-1]["f1_background"]) / 2
    errors = [validation["classification_error"] for validation in validations]
    if rule == "joint_error":
        return (errors[-1] + validations[-1].get("localizer_classification_error", errors[-1])) / 2
    if rule == "smoothed_error":
        return sum(errors[-window:]) / len(errors[-window:])
    return 0.0 if rule == "last" else errors[-1]
