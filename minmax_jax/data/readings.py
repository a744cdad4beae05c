"""How the values of image files become 8 bits: which channels are read, and which values become 0 and 255."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from minmax_jax.base import options
from minmax_jax.base.errors import OptionError

INTENSITIES = ("full", "percentiles")
# As cellpose and many recipes for fluorescence: 1 % of the pixels may be hot or saturated, 1 % dead.
PERCENTILES = (1, 99)
_MAX_VALUES = 1 << 24  # of a channel, for its percentiles; of larger ones a part, evenly spaced


@dataclasses.dataclass(frozen=True)
class Reading:
    """A choice that training and prediction share; it is stored with the prepared data and in the model card.

    Attributes:
        intensity: "full": the range of the file's type, of 16 bits the upper 8; "percentiles": of each image and
            channel, percentiles 1 and 99 become 0 and 255, whatever the type.
        channels: one (grey), two (red, green) or three (red, green, blue) indices, from 0, into the channels that a
            file stores, without its transparency; (): as the file's colours say.

    Raises:
        OptionError: for anything else.
    """

    intensity: str = "full"
    channels: tuple[int, ...] = ()

    def __post_init__(self):
        options.check_choice("intensity", self.intensity, INTENSITIES)
        are_right = all(type(channel) is int and channel >= 0 for channel in self.channels)
        if not are_right or len(self.channels) > 3:
            raise OptionError(
                f"channels={','.join(map(str, self.channels))} must be one, two or three indices, counted from 0, such"
                " as 0,2,1."
            )

    @property
    def is_default(self) -> bool:
        """Whether files are read as their colours and types say."""
        return self == AS_STORED

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"intensity": self.intensity, "channels": list(self.channels)}


AS_STORED = Reading()


def from_json(values: Mapping[str, Any] | None) -> Reading:
    """What `to_json` wrote; None, of an older version, is the default."""
    return Reading(values["intensity"], tuple(values["channels"])) if values else AS_STORED


def parse(intensity: str, channels: str) -> Reading:
    """A reading from text: channels are separated by commas, "" for those of the file's colours.

    Raises:
        OptionError: as `Reading`.
    """
    try:
        numbers = tuple(int(channel) for channel in channels.split(",")) if channels else ()
    except ValueError as error:
        raise OptionError(
            f"channels={channels} must be one, two or three indices, counted from 0, such as 0,2,1."
        ) from error
    return Reading(intensity, numbers)


def find_limits(values: np.ndarray) -> np.ndarray:
    """The values of each channel that become 0 and 255.

    Where nearly all pixels have one value, so that both percentiles are equal, these are minimum and maximum.

    Args:
        values: [H, W, C] numbers; those that are not finite do not count.

    Returns:
        [C, 2] float64; two equal values for a constant channel.
    """
    return np.array([_limits(values[..., channel]) for channel in range(values.shape[-1])])


def _limits(values: np.ndarray) -> tuple[float, float]:
    flat = values.reshape(-1)
    minimum, maximum = _finite_range(flat)
    flat = flat[:: flat.size // _MAX_VALUES + 1]
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
    if not flat.size:
        return minimum, maximum
    low, high = np.percentile(flat.astype(np.float64), PERCENTILES)
    return (low, high) if low < high else (minimum, maximum)


def _finite_range(flat: np.ndarray) -> tuple[float, float]:
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
    return (float(flat.min()), float(flat.max())) if flat.size else (0.0, 0.0)


def scale(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Brings each channel from its limits to 0 and 255, rounded.

    Args:
        values: [H, W, C] numbers; those that are not finite become 0, infinity 255.
        limits: [C, 2] of `find_limits`.

    Returns:
        [H, W, C] uint8; a constant channel is 0.
    """
    scaled = np.empty(values.shape, np.uint8)
    for channel, (low, high) in enumerate(limits):
        of_channel = values[..., channel].astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
        if high > low:
            shares = np.clip((of_channel - low) * (255 / (high - low)), 0, 255)
            scaled[..., channel] = np.round(np.nan_to_num(shares, nan=0.0))
        else:
            scaled[..., channel] = 0
    return scaled


def to_colors(pixels: np.ndarray) -> np.ndarray:
    """One channel to grey, two to red and green, three as they are: [H, W, 1 to 3] to [H, W, 3]."""
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 2:
        return np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=-1)
    return pixels
