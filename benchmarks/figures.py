"""What the benchmarks do with their figures."""

import pathlib
from typing import Any

from absl import flags
import numpy as np

from minmax_jax.base import strict_json

_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")


def summarize(values: Any) -> dict[str, float]:
    """Median and range of repeated measurements."""
    return {name: round(float(f(values)), 4) for name, f in (("median", np.median), ("min", min), ("max", max))}


def write(figures: Any) -> None:
    """Writes the figures to the file of the flag --json, if one is given."""
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(strict_json.dumps(figures, indent=2))
