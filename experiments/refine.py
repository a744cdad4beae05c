"""Gives a trained run a second stage: masks that follow the image.

    python -m experiments.refine --workdir=runs/flowers [--refine.num_steps=800 ...]

Trains a decoder on the frozen trunk of the selected model, tests it, and replaces results, predictions, model and
pictures in the workdir; `results.json` keeps the numbers of the first stage as `test_unrefined`. The fields of
--refine are those of config.refine. While training: --config.refine.enabled=True.
"""

import sys

from absl import flags
from minmax_jax.configs import common
from ml_collections import config_flags

from minmax_jax.base.paths import local_path

from . import program

try:
    _REFINE = config_flags.DEFINE_config_dict(
        "refine", common.get_config().refine, "Fields of config.refine that differ from the run's."
    )
except AttributeError as error:  # the definition reads the command line
    program.exit_for_unknown_field("refine", error, sys.argv)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the prepared data; default: as in training.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    from minmax_jax.base import disk
    from minmax_jax.runs import finished_runs

    folder = local_path("--workdir", _WORKDIR.value)
    program.start()
    changes = {name: _REFINE.value[name] for name in config_flags.get_override_values(flags.FLAGS["refine"])}
    with disk.explained(folder):
        content = finished_runs.refine_workdir(_WORKDIR.value, changes, data_dir=_DATA_DIR.value)
    program.print_results(content, _WORKDIR.value)


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
