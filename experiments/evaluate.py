"""Evaluates the selected model of a run again, from its checkpoint.

    python -m experiments.evaluate --workdir=runs/synthetic --split=test [--crf] [--flips]

Prints what `results.json` holds, and changes nothing. With --crf the masks are refined first, see docs/crf.md;
with --flips all that is found is a mean over the image and its mirror images, as config.evaluation.flips tells.
"""

import json
import pathlib

from absl import flags

from configs import common
from experiments import session
from minmax_jax.distributed import pmap
from minmax_jax.runs import config_checks, final_test, workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Which images.")
_CRF = flags.DEFINE_bool("crf", None, "Refine the masks by config.evaluation.crf; default: if it is enabled there.")
_FLIPS = flags.DEFINE_bool("flips", None, "Look at mirror images too; default: as config.evaluation.flips says.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    config = workdir.read_config(pathlib.Path(_WORKDIR.value))
    config_checks.check_fields(config, common.get_config())
    session.start(config.compilation_cache)
    found = final_test.evaluate_workdir(_WORKDIR.value, _SPLIT.value, crf=_CRF.value, flips=_FLIPS.value)
    if pmap.is_main_host():
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    session.run(main)
