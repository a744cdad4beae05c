"""Evaluates the selected model of a run again, from its checkpoint.

    python -m experiments.evaluate --workdir=runs/synthetic --split=test [--crf] [--flips] [--scales=1,1.5] [--norefine]

Prints the content of `results.json` and writes the rows of the split to the workdir. --crf refines the masks, see
docs/crf.md; --flips and --scales average predictions over mirror images and sizes, see config.evaluation; --norefine
evaluates the first stage of a run that has a second.
"""

import json

from absl import flags

from minmax_jax.errors import OptionError
from minmax_jax.paths import local_path

from . import program

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Images to evaluate.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the prepared data; default: as in training.")
_CRF = flags.DEFINE_bool("crf", None, "Refine the masks by config.evaluation.crf; default: as configured.")
_FLIPS = flags.DEFINE_bool("flips", None, "Average over mirror images; default: config.evaluation.flips.")
_SCALES = flags.DEFINE_list("scales", None, "Average over sizes, such as 1,1.5; default: config.evaluation.scales.")
_REFINE = flags.DEFINE_bool("refine", None, "Masks of the second stage; default: if the run has one.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    from minmax_jax.distributed import hosts
    from minmax_jax.errors import naming
    from minmax_jax.runs import finished_runs

    program.start(finished_runs.read_config(local_path("--workdir", _WORKDIR.value)).compilation_cache)
    with naming("--"):
        content = finished_runs.evaluate_workdir(
            _WORKDIR.value,
            _SPLIT.value,
            crf=_CRF.value,
            flips=_FLIPS.value,
            scales=_read_scales(),
            refine=_REFINE.value,
            data_dir=_DATA_DIR.value,
        )
    if hosts.is_main_host():
        print(json.dumps(content, indent=2))


def _read_scales() -> tuple[float, ...] | None:
    if _SCALES.value is None:
        return None
    try:
        return tuple(map(float, _SCALES.value))
    except ValueError as error:
        raise OptionError(f"scales={','.join(_SCALES.value)!r} must be numbers, such as 1,1.5.") from error


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
