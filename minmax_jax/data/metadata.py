"""How a dataset was prepared, for all of its images: `metadata.json` next to its records, as TFDS names it."""

import dataclasses
import json
import math
import pathlib
from typing import Any

from minmax_jax.data import dataset, readings

FILE = "metadata.json"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What the records do not say.

    Attributes:
        microns_per_pixel: of the images as they were prepared; 0 where it is unknown.
        background_classes: names of the classes without a region.
        reading: how the values of image files became 8 bits.
    """

    microns_per_pixel: float = 0.0
    background_classes: tuple[str, ...] = ()
    reading: readings.Reading = readings.AS_STORED

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what is the default is left out."""
        values = {
            "microns_per_pixel": self.microns_per_pixel,
            "background_classes": list(self.background_classes),
            "reading": {} if self.reading.is_default else self.reading.to_json(),
        }
        return {name: value for name, value in values.items() if value}


def read(folder: pathlib.Path) -> Metadata:
    """The metadata of a prepared dataset; the defaults where there is no such file, as of an earlier version.

    Raises:
        DataError: if the file is damaged.
    """
    try:
        values = json.loads((folder / FILE).read_text())
        names = values.get("background_classes", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"background_classes={names!r} are no names")
        microns = float(values.get("microns_per_pixel", 0.0))
        if not 0 <= microns < math.inf:
            raise ValueError(f"microns_per_pixel={microns} is no size")
        return Metadata(microns, tuple(names), readings.from_json(values.get("reading")))
    except FileNotFoundError:
        return Metadata()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise dataset.DataError(f"{folder} is damaged ({FILE}: {error}). Delete it and prepare it again.") from error
