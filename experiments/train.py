"""Trains and evaluates a configuration.

    python -m experiments.train --config=configs/synthetic.py --workdir=runs/synthetic [--config.FIELD=VALUE ...]

The same command continues a run that was stopped.
"""

from absl import flags
from ml_collections import config_flags

from configs import common
from experiments import session
from minmax_jax.distributed import pmap
from minmax_jax.runs import config_checks, results, training

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file; a variant follows after a colon.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: made, or continued.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    config_checks.check_fields(_CONFIG.value, common.get_config())
    session.start(_CONFIG.value.compilation_cache)
    found = training.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    if pmap.is_main_host():
        print(results.describe(found))
        print(f"Results: {_WORKDIR.value}/results.json   Pictures: {_WORKDIR.value}/pictures/")


if __name__ == "__main__":
    session.run(main)
