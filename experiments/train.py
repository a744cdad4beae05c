"""Trains and evaluates a configuration.

    python -m experiments.train --config=configs/synthetic.py --workdir=runs/synthetic [--config.FIELD=VALUE ...]

The same command resumes a run that was stopped. --dry_run says before what all of it will take: images, shapes, steps,
minutes by part, and memory. --config takes a file or the name of a shipped configuration; a variant follows after a
colon, as in --config=oxford:erasing=0.
"""

from absl import flags
from ml_collections import config_flags

from . import program

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration: a file or a shipped name, and its variant.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: created, or resumed.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Check everything, measure a few steps, say what the run will take, and write nothing to --workdir.",
)
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    from minmax_jax.configs import common

    from minmax_jax.runs import training
    from minmax_jax.runs.building import fields

    fields.check_fields(_CONFIG.value, common.get_config())
    program.start()
    if _DRY_RUN.value:
        from minmax_jax.runs import dry_run

        program.print_on_main_host(dry_run.describe(_CONFIG.value, _WORKDIR.value))
        return
    program.print_results(training.train_and_evaluate(_CONFIG.value, _WORKDIR.value), _WORKDIR.value)


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
