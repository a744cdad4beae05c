"""Rules for which values of a mask file are foreground, and which are left out of the evaluation."""

from collections.abc import Callable
import dataclasses

import numpy as np
from PIL import Image

from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset, image_files

# Below it, what JPEG leaves around an edge would count as foreground.
_MIN_THRESHOLD_OF_JPEG = 32
_MAX_OBJECTS = 65535  # of an image: their numbers are stored in 16 bits


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which pixels of a mask's file are foreground.

    Attributes:
        is_foreground: values of the file, [H, W] or [H, W, 3], to [H, W] bool.
        needs_exact_values: whether it distinguishes single values, which JPEG compression changes.
        reads_alpha: whether the values are those of the alpha channel.
        ignored_values: values of pixels that are neither foreground nor background.
        numbers_objects: whether the values of the foreground tell its objects apart, one value each.
    """

    is_foreground: Callable[[np.ndarray], np.ndarray]
    needs_exact_values: bool = False
    reads_alpha: bool = False
    ignored_values: tuple[int, ...] = ()
    numbers_objects: bool = False

    def __call__(self, mask: Image.Image) -> np.ndarray:
        """[H, W] bool foreground; with ignored values uint8, where `dataset.IGNORED` marks their pixels."""
        values = image_files.read_alpha(mask) if self.reads_alpha else image_files.read_values(mask)
        foreground = self.is_foreground(values)
        if not self.ignored_values:
            return foreground
        ignored = np.isin(values, self.ignored_values)
        ignored = ignored if ignored.ndim == 2 else ignored.all(axis=-1)
        return np.where(ignored, dataset.IGNORED, foreground).astype(np.uint8)

    def number_objects(self, mask: Image.Image) -> np.ndarray:
        """[H, W] uint16, the number of each pixel's object, from 1 in the order of their values; 0: of none.

        Raises:
            DataError: for a mask in colours, for fractions, or for more objects than 16 bits can number.
        """
        values, foreground = image_files.read_values(mask), self(mask) == 1
        if values.ndim == 3 or (values[foreground] % 1).any():
            kind = "colours" if values.ndim == 3 else "fractions"
            raise dataset.DataError(f"it has {kind}; its objects must be numbered. Save it as grey PNG.")
        found, numbers = np.unique(values[foreground], return_inverse=True)
        if len(found) > _MAX_OBJECTS:
            raise dataset.DataError(f"it numbers {len(found)} objects; at most {_MAX_OBJECTS} can be stored.")
        objects = np.zeros(foreground.shape, np.uint16)
        objects[foreground] = numbers + 1
        return objects


def above(threshold: float) -> Rule:
    """The rule by which a pixel is foreground where its value, or one of its colour's, is above a threshold.

    Of a mask with one bit a pixel, the foreground is that bit.
    """
    return Rule(
        lambda values: values if values.dtype == bool else _one_channel(values > threshold),
        needs_exact_values=threshold < _MIN_THRESHOLD_OF_JPEG,
    )


def parse(rule: str, *, ignore: str = "", instances: bool = False) -> Rule:
    """Parses a rule: ">T" for values above T, "A,B,..." for these values, or "alpha" for an opaque alpha channel.

    Args:
        rule: of the foreground.
        ignore: "A,B,...", the values of pixels that are left out of the evaluation.
        instances: whether the values of the foreground number its objects.

    Raises:
        OptionError: for anything else.
    """
    try:
        ignored_values = tuple(int(value) for value in ignore.split(",")) if ignore else ()
    except ValueError as error:
        raise OptionError(f"ignore={ignore!r} must be values, such as '255' or '2,255'.") from error
    foreground = _parse_foreground(rule)
    if instances and foreground.reads_alpha:
        raise OptionError("instances needs the values of the masks, which foreground='alpha' does not read.")
    return dataclasses.replace(
        foreground,
        ignored_values=ignored_values,
        needs_exact_values=foreground.needs_exact_values or bool(ignored_values) or instances,
        numbers_objects=instances,
    )


def _parse_foreground(rule: str) -> Rule:
    if rule == "alpha":
        return dataclasses.replace(above(127), reads_alpha=True)
    try:
        if rule.startswith(">"):
            return above(float(rule[1:]))
        values = [int(value) for value in rule.split(",")]
    except ValueError as error:
        raise OptionError(
            f"foreground={rule!r} must be '>T', such as '>0' or '>127', values such as '1' or '1,2', or 'alpha'."
        ) from error
    return Rule(lambda pixels: _one_channel(np.isin(pixels, values)), needs_exact_values=True)


def refuse_blurred(rule: Rule, mask: Image.Image, name: str) -> None:
    """Refuses a mask that was compressed as JPEG where the rule needs exact values.

    Args:
        rule: which values are foreground.
        mask: as it was opened; nothing is decoded.
        name: of the file, for the message.

    Raises:
        DataError: for such a mask.
    """
    if rule.needs_exact_values and (mask.format in ("JPEG", "MPO") or mask.info.get("compression") == "jpeg"):
        remedy = "save it as PNG" if rule.numbers_objects else "give a threshold, such as foreground='>127', or PNG"
        raise dataset.DataError(f"{name} is a JPEG, whose values are blurred: {remedy}.")


def _one_channel(matches: np.ndarray) -> np.ndarray:
    return matches if matches.ndim == 2 else matches.any(axis=-1)
