"""Checks a downloaded dataset, or own images, and writes them in the form that training reads.

    python -m experiments.prepare_data --dataset=oxford_flowers --download --data_dir=OUT
    python -m experiments.prepare_data --dataset=glas --source=FOLDER_OR_ARCHIVE --data_dir=OUT
    python -m experiments.prepare_data --dataset=image_folder --name=NAME --source=FOLDER --data_dir=OUT
    python -m experiments.prepare_data --dataset=csv --name=NAME --source=FOLDER --folds=FOLDER --data_dir=OUT

Writes OUT/DATASET or OUT/NAME; train with --config.data.dir=OUT. A run that was stopped is started again with the same
command. The five classes of CUB5 are taken from a prepared `cub`. docs/data.md tells more.
"""

import pathlib

from absl import flags

from experiments import session
from minmax_jax.data.importing import (
    csv_files,
    cub,
    download,
    glas,
    image_folder,
    mask_rules,
    oxford_flowers,
    raw_dataset,
    records,
    summary,
    tiles,
)
from minmax_jax.runs import config_checks

_OWN = ("image_folder", "csv")
_DOWNLOADABLE = {"cub": cub, "oxford_flowers": oxford_flowers}
_DATASET = flags.DEFINE_enum("dataset", None, ["glas", *_DOWNLOADABLE, *_OWN], "Which dataset.")
_SOURCE = flags.DEFINE_multi_string(
    "source", [], "The dataset as it was downloaded: a folder, or an archive. Can be given several times."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder to write to.")
_DOWNLOAD = flags.DEFINE_bool("download", False, "Download what is not yet in --source, or else DATA_DIR/downloads.")
_CHECK = flags.DEFINE_bool("check", False, "Only read again what was prepared, image by image.")
_NAME = flags.DEFINE_string("name", "", "Of own images: what to call them, in small letters, digits and underscores.")
_MASKS = flags.DEFINE_string("masks", "", "Of --dataset=image_folder: folder with masks, laid out as the images are.")
_FOLDS = flags.DEFINE_string("folds", "", "Of --dataset=csv: folder with train.csv, test.csv and maybe valid.csv.")
_FOREGROUND = flags.DEFINE_string("foreground", ">0", "Of own masks: values of the foreground, '>127' or '1,3'.")
_TEST_SHARE = flags.DEFINE_float("test_share", 0.2, "Of --dataset=image_folder without splits: share that tests.", 0, 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of that choice, and, with --tile_size, of the images that validate.", 0)
_TILE_SIZE = flags.DEFINE_integer("tile_size", 0, "Of own images: pixels a side of the tiles they are cut to; 0: none.")
_TILE_SCALE = flags.DEFINE_float("tile_scale", 1.0, "Of tiles: share of full resolution at which images are cut.")
_LEAST_TISSUE = flags.DEFINE_float("least_tissue", 0.1, "Of tiles: share that must be stained tissue; 0 keeps all.")
_SKIP_BAD = flags.DEFINE_bool(
    "skip_bad", False, "Leave out images that cannot be used, and list them, instead of ending."
)
flags.mark_flags_as_required(["dataset", "data_dir"])


def main() -> None:
    name, config = _DATASET.value, f"{_DATASET.value.removesuffix('_flowers')}.py"
    if _DATASET.value in _OWN:
        name, config = _NAME.value, f"custom.py:{_NAME.value}"
        raw_dataset.check_name(name, taken=config_checks.DATASETS)
    if _CHECK.value:
        records.check(_DATA_DIR.value, name)
    else:
        records.prepare(name, _read_release, _DATA_DIR.value, skip_bad=_SKIP_BAD.value)
    print(summary.describe(_DATA_DIR.value, name))
    print(f"Train with --config=configs/{config} --config.data.dir={_DATA_DIR.value}")


def _read_release(scratch: pathlib.Path) -> raw_dataset.Release:
    """What the flags name; archives are unpacked to a folder."""
    sources = _SOURCE.value
    if _TILE_SIZE.value and _DATASET.value not in _OWN:
        raise ValueError(f"--tile_size={_TILE_SIZE.value}: only own images are cut, --dataset=image_folder or csv.")
    if _DOWNLOAD.value:
        sources = _download()
    if not sources:
        raise ValueError("--source is missing: the folder or the archives of the dataset.")
    if _DATASET.value in _DOWNLOADABLE:
        return _DOWNLOADABLE[_DATASET.value].read_release(sources, scratch)
    if len(sources) > 1:
        raise ValueError(f"--source={sources}: --dataset={_DATASET.value} takes one.")
    if _DATASET.value == "glas":
        return glas.read_release(sources[0])
    found = _read_own(sources[0], mask_rules.parse(_FOREGROUND.value))
    if not _TILE_SIZE.value:
        return found
    tiling = tiles.Tiling(_TILE_SIZE.value, scale=_TILE_SCALE.value, least_tissue=_LEAST_TISSUE.value)
    return tiles.cut(found, tiling, seed=_SEED.value)


def _read_own(source: str, mask_rule: mask_rules.Rule) -> raw_dataset.Release:
    if _DATASET.value == "csv":
        return csv_files.read_release(source, _FOLDS.value, mask_rule=mask_rule)
    return image_folder.read_release(
        source, masks=_MASKS.value, mask_rule=mask_rule, test_share=_TEST_SHARE.value, seed=_SEED.value
    )


def _download() -> list[str]:
    if _DATASET.value not in _DOWNLOADABLE:
        page = f", from {glas.HOMEPAGE}" if _DATASET.value == "glas" else ""
        raise ValueError(f"--download: {_DATASET.value} cannot be downloaded by a program. Give --source{page}.")
    wanted = _DOWNLOADABLE[_DATASET.value]
    sources = _SOURCE.value or [str(pathlib.Path(_DATA_DIR.value) / "downloads" / _DATASET.value)]
    download.fetch(wanted.FILES, pathlib.Path(sources[0]), homepage=wanted.HOMEPAGE)
    return sources


if __name__ == "__main__":
    session.run(main)
