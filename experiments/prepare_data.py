"""Checks a downloaded dataset and writes it in the form that training reads.

    python -m experiments.prepare_data --dataset=glas --source=FOLDER_OR_ZIP --data_dir=OUT

Writes OUT/glas; train with --config.data.dir=OUT. A run that was stopped is started again with the same command.
"""

from absl import flags

from experiments import session
from minmax_jax.data import glas, records

_DATASET = flags.DEFINE_enum("dataset", None, ["glas"], "Name of the dataset.")
_SOURCE = flags.DEFINE_string("source", None, "The dataset as it was downloaded: a folder, or a ZIP file.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder to write to.")
flags.mark_flags_as_required(["dataset", "source", "data_dir"])


def main() -> None:
    folder = records.prepare(glas.Glas(source=_SOURCE.value, data_dir=_DATA_DIR.value))
    print(records.describe(_DATA_DIR.value, _DATASET.value))
    print(f"Prepared in {folder}. Train with --config.data.dir={_DATA_DIR.value}")


if __name__ == "__main__":
    session.run(main)
