"""Evaluates the selected model of a run again, from its checkpoint.

    python -m experiments.evaluate --workdir=runs/synthetic --split=test [--crf] [--flips] [--scales=1,1.5] [--norefine]

    python -m experiments.evaluate --predictions=DIR --dataset=glas|cub|oxford_flowers|NAME --data_dir=OUT

The first evaluates a run. The second scores heat maps of any other system, a .npy, .npz or .png file with values from 0
to 1 (PNG: 0 to 255 or 65535) for each image of the split, by all metrics of masks (docs/metrics.md).

Prints the content of `results.json` and writes the rows of the split to the workdir. --crf refines the first stage's
masks, see docs/crf.md; --flips and --scales average predictions over mirror images and sizes, see config.evaluation;
--norefine evaluates the first stage of a run that has a second.
"""

from typing import Any

from absl import flags

from minmax_jax.base import strict_json
from minmax_jax.base.errors import OptionError

from . import program

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Images to evaluate.")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of heat maps, in place of a run.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "With --predictions: name of a published dataset, or of own prepared images."
)
_FOLDS = flags.DEFINE_string("folds", "", "With --predictions: folder of published split files.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the prepared data; default: as in training.")
_CRF = flags.DEFINE_bool("crf", False, "Refine the first stage's masks by config.evaluation.crf.")
_FLIPS = flags.DEFINE_bool("flips", None, "Average over mirror images; default: as in the run.")
_SCALES = flags.DEFINE_list("scales", None, "Average over sizes, such as 1,1.5; default: as in the run.")
_REFINE = flags.DEFINE_bool("refine", None, "Masks of the second stage; default: if the run has one.")
flags.mark_flags_as_mutual_exclusive(["workdir", "predictions"], required=True)


def main() -> None:
    from minmax_jax.distributed import hosts

    content = _evaluate_run() if _PREDICTIONS.value is None else _evaluate_heat_maps()
    if hosts.is_main_host():
        print(strict_json.dumps(content, indent=2))


def _refuse(with_flag: str, *names: str) -> None:
    """Raises OptionError for flags that would have no effect."""
    for name in names:
        if flags.FLAGS[name].present:
            raise OptionError(f"--{name} has no effect with --{with_flag}. Leave it out.")


def _evaluate_run() -> dict[str, Any]:
    from minmax_jax.base.errors import naming
    from minmax_jax.runs import finished_runs

    _refuse("workdir", "dataset", "folds")
    program.start()
    with naming("--"):
        return finished_runs.evaluate_workdir(
            _WORKDIR.value,
            _SPLIT.value,
            crf=_CRF.value,
            flips=_FLIPS.value,
            scales=program.read_scales(_SCALES.value),
            refine=_REFINE.value,
            data_dir=_DATA_DIR.value,
        )


def _evaluate_heat_maps() -> dict[str, Any]:
    from minmax_jax.runs import heat_maps

    _refuse("predictions", "crf", "flips", "scales", "refine")
    if not (_DATASET.value and _DATA_DIR.value):
        raise OptionError("--predictions needs --dataset and --data_dir.")
    program.start(keeps_compiled=False)
    return heat_maps.evaluate_folder(
        _PREDICTIONS.value, _DATASET.value, _SPLIT.value, data_dir=_DATA_DIR.value, folds=_FOLDS.value
    )


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
