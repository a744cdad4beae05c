"""Evaluates the selected model of a run again, from its checkpoint.

    python -m experiments.evaluate --workdir=runs/synthetic --split=test

Prints what `results.json` holds, and changes nothing.
"""

import json
import pathlib

from absl import flags

from experiments import session
from minmax_jax import testing, workdirs

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Which images.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    session.start(workdirs.read_config(pathlib.Path(_WORKDIR.value)).compilation_cache)
    print(json.dumps(testing.evaluate_workdir(_WORKDIR.value, _SPLIT.value), indent=2))


if __name__ == "__main__":
    session.run(main)
