"""Checks a downloaded dataset and writes it in the form that training reads.

    python -m experiments.prepare_data --dataset=glas --source=FOLDER_OR_ARCHIVE --data_dir=OUT

Writes OUT/glas; train with --config.data.dir=OUT. A run that was stopped is started again with the same command.
The five classes of CUB5 are taken from a prepared `cub`.
"""

import functools

from absl import flags

from experiments import session
from minmax_jax.data import cub, glas, oxford_flowers, records

_DATASET = flags.DEFINE_enum("dataset", None, ["glas", "cub", "oxford_flowers"], "Name of the dataset.")
_SOURCE = flags.DEFINE_multi_string(
    "source", None, "The dataset as it was downloaded: a folder, or an archive. Can be given several times."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder to write to.")
flags.mark_flags_as_required(["dataset", "source", "data_dir"])


def main() -> None:
    read_release = {
        "glas": lambda sources, scratch: glas.read_release(sources[0]),
        "cub": cub.read_release,
        "oxford_flowers": oxford_flowers.read_release,
    }[_DATASET.value]
    folder = records.prepare(_DATASET.value, functools.partial(read_release, _SOURCE.value), _DATA_DIR.value)
    print(records.describe(_DATA_DIR.value, _DATASET.value))
    print(f"Prepared in {folder}. Train with --config.data.dir={_DATA_DIR.value}")


if __name__ == "__main__":
    session.run(main)
