"""Checks a downloaded dataset, or own images, and writes them in the form that training reads.

    python -m experiments.prepare_data --dataset=glas --source=FOLDER_OR_ARCHIVE --data_dir=OUT
    python -m experiments.prepare_data --dataset=image_folder --name=NAME --source=FOLDER --data_dir=OUT
    python -m experiments.prepare_data --dataset=csv --name=NAME --source=FOLDER --folds=FOLDER --data_dir=OUT

Writes OUT/glas or OUT/NAME; train with --config.data.dir=OUT. A run that was stopped is started again with the same
command. The five classes of CUB5 are taken from a prepared `cub`. docs/data.md tells more.
"""

from collections.abc import Callable

from absl import flags

from experiments import session
from minmax_jax import config_schema
from minmax_jax.data import csv_files, cub, glas, image_folder, oxford_flowers, records, release

_OWN = ("image_folder", "csv")
_DATASET = flags.DEFINE_enum("dataset", None, ["glas", "cub", "oxford_flowers", *_OWN], "Which dataset.")
_NAME = flags.DEFINE_string("name", "", "Of own images: what to call them, in small letters, digits and underscores.")
_SOURCE = flags.DEFINE_multi_string(
    "source", None, "The dataset as it was downloaded: a folder, or an archive. Can be given several times."
)
_MASKS = flags.DEFINE_string("masks", "", "Of --dataset=image_folder: folder with masks, laid out as the images are.")
_FOLDS = flags.DEFINE_string("folds", "", "Of --dataset=csv: folder with train.csv, test.csv and maybe valid.csv.")
_FOREGROUND = flags.DEFINE_string("foreground", ">0", "Of own masks: values of the foreground, '>127' or '1,3'.")
_TEST_SHARE = flags.DEFINE_float("test_share", 0.2, "Of --dataset=image_folder without splits: share that tests.", 0, 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of that choice.", 0)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder to write to.")
flags.mark_flags_as_required(["dataset", "source", "data_dir"])


def main() -> None:
    name = _name()
    folder = records.prepare(name, _read_release(), _DATA_DIR.value)
    config = f"custom.py:{name}" if _DATASET.value in _OWN else f"{name.removesuffix('_flowers')}.py"
    print(records.describe(_DATA_DIR.value, name))
    print(f"Prepared in {folder}. Train with --config=configs/{config} --config.data.dir={_DATA_DIR.value}")


def _name() -> str:
    if _DATASET.value not in _OWN:
        return _DATASET.value
    release.check_name(_NAME.value, taken=config_schema.DATASETS)
    return _NAME.value


def _read_release() -> Callable:
    """What reads the release, given a folder for what is unpacked."""
    sources = _SOURCE.value
    if _DATASET.value == "cub":
        return lambda scratch: cub.read_release(sources, scratch)
    if _DATASET.value == "oxford_flowers":
        return lambda scratch: oxford_flowers.read_release(sources, scratch)
    if len(sources) > 1:
        raise ValueError(f"--source={sources}: --dataset={_DATASET.value} takes one.")
    if _DATASET.value == "glas":
        return lambda scratch: glas.read_release(sources[0])
    is_foreground, needs_exact_masks = release.parse_rule(_FOREGROUND.value)
    options = {"is_foreground": is_foreground, "needs_exact_masks": needs_exact_masks}
    if _DATASET.value == "csv":
        return lambda scratch: csv_files.read_release(sources[0], _FOLDS.value, **options)
    options |= {"masks": _MASKS.value, "test_share": _TEST_SHARE.value, "seed": _SEED.value}
    return lambda scratch: image_folder.read_release(sources[0], **options)


if __name__ == "__main__":
    session.run(main)
