"""Rules for which values of a mask file are foreground."""

from collections.abc import Callable
import dataclasses

import numpy as np
from PIL import Image

from minmax_jax.data import dataset
from minmax_jax.errors import OptionError

# Below it, what JPEG leaves around an edge would count as foreground.
_LEAST_THRESHOLD_OF_JPEG = 32


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which pixels of a mask's file are foreground.

    Attributes:
        is_foreground: values of the file, [H, W] or [H, W, 3], to [H, W] bool.
        needs_exact_values: whether it distinguishes single values, which JPEG compression changes.
    """

    is_foreground: Callable[[np.ndarray], np.ndarray]
    needs_exact_values: bool = False


def above(threshold: float) -> Rule:
    """The rule by which a pixel is foreground where its value, or one of its colour's, is above a threshold.

    Of a mask with one bit a pixel, the foreground is that bit.
    """
    return Rule(
        lambda values: values if values.dtype == bool else _one_channel(values > threshold),
        needs_exact_values=threshold < _LEAST_THRESHOLD_OF_JPEG,
    )


def parse(rule: str) -> Rule:
    """Parses a rule: ">T" for values above T, or "A,B,..." for these values.

    Raises:
        DataError: for anything else.
    """
    try:
        if rule.startswith(">"):
            return above(float(rule[1:]))
        values = [int(value) for value in rule.split(",")]
    except ValueError as error:
        raise OptionError(
            f"foreground={rule!r} must be '>T', such as '>0' or '>127', or values such as '1' or '1,2'."
        ) from error
    return Rule(lambda pixels: _one_channel(np.isin(pixels, values)), needs_exact_values=True)


def refuse_blurred(rule: Rule, mask: Image.Image, name: str) -> None:
    """Refuses a mask that was compressed as JPEG where the rule needs exact values.

    Raises:
        DataError: for such a mask.
    """
    if rule.needs_exact_values and (mask.format in ("JPEG", "MPO") or mask.info.get("compression") == "jpeg"):
        raise dataset.DataError(
            f"{name} is a JPEG, whose values are blurred: give a threshold, such as foreground='>127', or PNG."
        )


def _one_channel(matches: np.ndarray) -> np.ndarray:
    return matches if matches.ndim == 2 else matches.any(axis=-1)
