"""Checks a downloaded dataset, or own images, and writes them in the form that training reads.

    python -m experiments.prepare_data --dataset=oxford_flowers --download --data_dir=OUT
    python -m experiments.prepare_data --dataset=glas --source=FOLDER_OR_ARCHIVE --data_dir=OUT
    python -m experiments.prepare_data --dataset=image_folder --name=NAME --source=FOLDER --data_dir=OUT
    python -m experiments.prepare_data --dataset=csv --name=NAME --source=FOLDER --folds=FOLDER --data_dir=OUT

Writes OUT/DATASET or OUT/NAME; train with --config.data.dir=OUT. The same command resumes a run that was stopped. CUB5
is part of a prepared `cub`. docs/data.md describes layouts and formats.
"""

import dataclasses
import functools
import importlib
import logging
import os
import pathlib
import sys

from absl import flags

from minmax_jax.base import shares, strict_json
from minmax_jax.base.errors import OptionError, naming
from minmax_jax.base.paths import local_path

from . import processes, program

_OWN = ("image_folder", "csv")
_DOWNLOADABLE = ("cub", "oxford_flowers")
_CHANGE_NO_RECORD = ("data_dir", "download", "check", "skip_bad")
_MAX_THREADS = 8
_DATASET = flags.DEFINE_enum("dataset", None, ["glas", *_DOWNLOADABLE, *_OWN], "The dataset.")
_SOURCE = flags.DEFINE_multi_string(
    "source", [], "The dataset as downloaded: a folder or an archive. Can be given several times."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder to write to.")
_DOWNLOAD = flags.DEFINE_bool("download", False, "Download what is not yet in --source, by default DATA_DIR/downloads.")
_CHECK = flags.DEFINE_bool("check", False, "Only verify a prepared dataset, image by image.")
_NAME = flags.DEFINE_string("name", "", "Name of own images: lower-case letters, digits and underscores.")
_MASKS = flags.DEFINE_string("masks", "", "With --dataset=image_folder: folder of masks, in the layout of the images.")
_ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    "",
    "Annotations of own images, in place of masks: file or folder of COCO, QuPath, labelme or Pascal VOC.",
)
_FOLDS = flags.DEFINE_string("folds", "", "With --dataset=csv: folder of train.csv, test.csv and optionally val.csv.")
_FOREGROUND = flags.DEFINE_string(
    "foreground",
    ">0",
    "Foreground values of own masks, such as '>127' or '1,3', or alpha; with annotations, their categories; with"
    " --dataset=oxford_flowers, the word published for masks by the published rule.",
)
_IGNORE = flags.DEFINE_string(
    "ignore",
    "",
    "Values of own masks that the evaluation leaves out, such as '255'; with annotations, their categories.",
)
_INSTANCES = flags.DEFINE_bool("instances", False, "The values of own masks number the objects of the image.")
_INTENSITY = flags.DEFINE_enum(
    "intensity",
    "full",
    ["full", "percentiles"],
    "Intensities of own images that become 0 and 255: the full range of the type (of 16 bits the upper 8 are read), or"
    " percentiles 1 and 99 of each image and channel.",
)
_CHANNELS = flags.DEFINE_string(
    "channels",
    "",
    "Channels of own images, one to three, counted from 0, such as 0,2,1; default: the colours of the file.",
)
_BACKGROUND = flags.DEFINE_list(
    "background_classes", [], "Classes of own images without a region, such as normal,empty; their masks are empty."
)
_TEST_SHARE = flags.DEFINE_float(
    "test_share", 0.2, "With --dataset=image_folder without splits: share of the images for the test.", 0, 1
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the choice of test images and, with --tile_size, of validation images.", 0
)
_TILE_SIZE = flags.DEFINE_integer(
    "tile_size", 0, "Side of the tiles that own images are cut into, pixels; 0: no tiles."
)
_TILE_SCALE = flags.DEFINE_float(
    "tile_scale", 1.0, "Resolution at which images are cut into tiles, share of the full resolution."
)
_TILE_MICRONS = flags.DEFINE_float(
    "tile_microns",
    0.0,
    "Side of the tiles in microns, which resizes all slides to one pixel size; 0: slides are not resized.",
)
_MIN_TISSUE = flags.DEFINE_float("min_tissue", 0.1, "Minimum share of stained tissue in a tile; 0 keeps all tiles.")
_MICRONS = flags.DEFINE_float(
    "microns_per_pixel", 0.0, "Microns per pixel of own images whose files do not say it; 0: unknown."
)
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out unusable images, and list them, instead of stopping.")
flags.mark_flags_as_required(["dataset", "data_dir"])


def main() -> None:
    from minmax_jax.base import disk
    from minmax_jax.data.importing import raw_dataset, records, summary
    from minmax_jax.runs.building import groups

    name, config, masks = _DATASET.value, _DATASET.value.removesuffix("_flowers"), None
    with naming("--"):
        if _DATASET.value in _OWN:
            name, config = _NAME.value, f"custom:{_NAME.value}"
            raw_dataset.check_name(name, taken=groups.DATASETS)
        share = _find_share()
        if _CHECK.value:
            records.check(_DATA_DIR.value, name)
        else:
            _check_target(local_path("data_dir", _DATA_DIR.value) / name)
            _check_reading(name)
            with disk.explained(local_path("data_dir", _DATA_DIR.value) / name):
                prepared = records.prepare(
                    name,
                    functools.partial(_read_raw, is_first=share.index == 0),
                    _DATA_DIR.value,
                    skip_bad=_SKIP_BAD.value,
                    job=_describe_job(),
                    share=share,
                    num_threads=_num_threads(),
                )
            if prepared is None or (prepared.masks is None and share.index):  # others join, or it was there before
                return
            masks = prepared.masks
            _check_background(name)
        print(summary.describe(_DATA_DIR.value, name, masks))
    print(f"Train with --config={config} --config.data.dir={_DATA_DIR.value}")


def _find_share() -> shares.Share:
    """The share of the images that this process reads; ends this process if it is to start all others."""
    share = processes.find_share()
    if share is None or share.count > 1:
        if _CHECK.value:
            raise OptionError("check reads with one process. Leave out num_processes, process_id and multihost.")
        if _DOWNLOAD.value:
            raise OptionError(
                "download is for one process. Run the command without num_processes, process_id and multihost; or stop"
                " it when the files are there, and give their folder by source."
            )
    if share is None:
        sys.exit(processes.run_all("prepare_data", sys.argv, flags.FLAGS.num_processes, takes_gpus=False))
    return share


def _num_threads() -> int:
    """Threads that read images: as many as this process has cores, up to 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_THREADS, cores)


def _describe_job() -> str:
    """The flags that determine what the records of an image are."""
    holders = [value for value in globals().values() if isinstance(value, flags.FlagHolder)]
    return strict_json.dumps({holder.name: holder.value for holder in holders if holder.name not in _CHANGE_NO_RECORD})


def _check_background(name: str) -> None:
    """Raises OptionError where data that were prepared before have other classes without a region than the flag."""
    from minmax_jax.data import load

    if not flags.FLAGS["background_classes"].present:
        return
    declared = load.read_splits(_DATA_DIR.value, name)["train"].background_classes
    if set(_BACKGROUND.value) != set(declared):
        raise OptionError(
            f"background_classes={','.join(_BACKGROUND.value)}: {name!r} was prepared before with"
            f" {','.join(declared) or 'none'}. Delete its folder in {_DATA_DIR.value} to prepare it anew, or set"
            " config.data.background_classes in training."
        )


def _check_target(folder: pathlib.Path) -> None:
    """Raises OptionError for a folder that holds the source: to prepare it anew, it is deleted."""
    for flag in (*_SOURCE.value, _MASKS.value, _ANNOTATIONS.value, _FOLDS.value):
        if flag and local_path("source", flag).resolve().is_relative_to(folder.resolve()):
            raise OptionError(
                f"data_dir={_DATA_DIR.value} and name would write to {str(folder)!r}, which holds {flag!r}. Choose"
                " another data_dir."
            )


def _check_reading(name: str) -> None:
    """Raises OptionError where the dataset is prepared already, with other channels or intensities."""
    from minmax_jax.data import load, metadata, readings

    wanted = readings.parse(_INTENSITY.value, _CHANNELS.value)
    folder = local_path("data_dir", _DATA_DIR.value) / name / load.VERSION
    if folder.exists() and (found := metadata.read(folder).reading) != wanted:
        raise OptionError(
            f"intensity={wanted.intensity} and channels={_CHANNELS.value!r}: {folder} was prepared with"
            f" {found.intensity!r} and {','.join(map(str, found.channels))!r}. Delete it to prepare it anew."
        )


def _read_raw(scratch: pathlib.Path, *, is_first: bool):
    """The RawDataset that the flags name; archives are unpacked to a folder. Of several processes one warns."""
    _check_flags()
    logger, level = logging.getLogger("minmax_jax"), logging.getLogger("minmax_jax").level
    if is_first:
        return _read_source(scratch)
    logger.setLevel(logging.ERROR)
    try:
        return _read_source(scratch)
    finally:
        logger.setLevel(level)


def _read_source(scratch: pathlib.Path):
    sources = _SOURCE.value
    if _DOWNLOAD.value:
        sources = _download()
    if not sources:
        raise OptionError("source is missing: the folder or the archives of the dataset.")
    if _DATASET.value == "oxford_flowers":
        rule = _FOREGROUND.value if flags.FLAGS["foreground"].present else ""
        return _module(_DATASET.value).read_raw(sources, scratch, foreground=rule)
    if _DATASET.value in _DOWNLOADABLE:
        return _module(_DATASET.value).read_raw(sources, scratch)
    if len(sources) > 1:
        raise OptionError(f"source={sources}: --dataset={_DATASET.value} takes one.")
    if _DATASET.value == "glas":
        return _module("glas").read_raw(sources[0])
    return _read_own(sources[0], scratch)


def _check_flags() -> None:
    """Raises OptionError for a flag that would have no effect."""
    own, tiled = _DATASET.value in _OWN, _TILE_SIZE.value > 0
    for is_read, who, names in (
        (
            own,
            "own images, --dataset=image_folder or csv",
            "name annotations ignore instances background_classes tile_size seed intensity channels microns_per_pixel",
        ),
        (own or _DATASET.value == "oxford_flowers", "own images and oxford_flowers", "foreground"),
        (_DATASET.value == "image_folder", "--dataset=image_folder", "masks test_share"),
        (_DATASET.value == "csv", "--dataset=csv", "folds"),
        (own and tiled, "tiles, --tile_size", "tile_scale tile_microns min_tissue"),
    ):
        for name in names.split():
            if flags.FLAGS[name].present and not is_read:
                raise OptionError(f"{name}={flags.FLAGS[name].value} is for {who}. Leave it out.")


def _module(dataset: str):
    """The module of a dataset; imported late, so that --help is fast."""
    return importlib.import_module(f"minmax_jax.data.importing.{dataset}")


def _read_own(source: str, scratch: pathlib.Path):
    from minmax_jax.data import dataset, readings
    from minmax_jax.data.importing import (
        annotations,
        archives,
        csv_files,
        image_folder,
        magnification,
        mask_checks,
        mask_rules,
        tiles,
    )

    mask_rule = mask_rules.above(0)
    if not _ANNOTATIONS.value:
        mask_rule = mask_rules.parse(_FOREGROUND.value, ignore=_IGNORE.value, instances=_INSTANCES.value)
    elif _INSTANCES.value:
        mask_rule = mask_rules.parse(">0", instances=True)
    source, drawn = archives.unpacked(source, scratch), _ANNOTATIONS.value
    if drawn and not local_path("annotations", drawn).exists() and (pathlib.Path(source) / drawn).exists():
        drawn = str(pathlib.Path(source) / drawn)  # in the archive
    if _DATASET.value == "csv":
        raw = csv_files.read_raw(source, _FOLDS.value, mask_rule=mask_rule)
    else:
        raw = image_folder.read_raw(
            source,
            masks=_MASKS.value,
            mask_rule=mask_rule,
            test_share=_TEST_SHARE.value,
            seed=_SEED.value,
            left_out=annotations.among(source, drawn) if drawn else (),
        )
    if drawn:
        foreground = _FOREGROUND.value if flags.FLAGS["foreground"].present else ""
        raw = annotations.attach(raw, drawn, foreground=foreground, ignore=_IGNORE.value)
    elif not (flags.FLAGS["foreground"].present or _IGNORE.value or _INSTANCES.value):
        mask_checks.warn_of_values(raw)
    raw = dataclasses.replace(
        raw,
        reading=readings.parse(_INTENSITY.value, _CHANNELS.value),
        background_classes=dataset.check_background(_BACKGROUND.value, raw.class_names),
    )
    sizes = magnification.read(raw, given=_MICRONS.value)
    if not _TILE_SIZE.value:
        return magnification.record(raw, sizes)
    tiling = tiles.Tiling(
        _TILE_SIZE.value, scale=_TILE_SCALE.value, min_tissue=_MIN_TISSUE.value, microns=_TILE_MICRONS.value
    )
    return tiles.cut(raw, tiling, seed=_SEED.value, sizes=sizes, skip_bad=_SKIP_BAD.value)


def _download() -> list[str]:
    from minmax_jax.data.importing import download

    if _DATASET.value not in _DOWNLOADABLE:
        page = f", from {_module('glas').HOMEPAGE}" if _DATASET.value == "glas" else ""
        raise OptionError(f"download: {_DATASET.value} cannot be downloaded by a program. Give --source{page}.")
    module = _module(_DATASET.value)
    sources = _SOURCE.value or [str(local_path("data_dir", _DATA_DIR.value) / "downloads" / _DATASET.value)]
    download.fetch(module.FILES, local_path("source", sources[0]), homepage=module.HOMEPAGE)
    return sources


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
