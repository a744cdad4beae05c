"""How the image files of a prepared dataset were read: `reading.json` next to its records."""

import json
import pathlib

from minmax_jax.data import dataset, readings

NAME = "reading.json"


def write(folder: pathlib.Path, reading: readings.Reading) -> None:
    """Stores a reading; the default, which leaves files as they are, is stored as no file."""
    if not reading.is_default:
        (folder / NAME).write_text(json.dumps(reading.to_json()) + "\n")


def read(folder: pathlib.Path) -> readings.Reading:
    """The reading of a prepared dataset.

    Raises:
        DataError: if the file that says so is damaged.
    """
    try:
        return readings.from_json(json.loads((folder / NAME).read_text()))
    except FileNotFoundError:
        return readings.AS_STORED
    except (ValueError, KeyError, TypeError) as error:
        raise dataset.DataError(f"{folder} is damaged ({NAME}: {error}). Delete it and prepare it again.") from error
