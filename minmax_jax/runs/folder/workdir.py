"""The folder of a run: one configuration, one dataset, and files that are written completely or not at all."""

from collections.abc import Mapping
import contextlib
import json
import logging
import pathlib
import tempfile
from typing import Any

import ml_collections

from minmax_jax.base import disk, lock, strict_json
from minmax_jax.base.errors import UserError
from minmax_jax.base.paths import local_path
from minmax_jax.configs import common
from minmax_jax.data import dataset
from minmax_jax.distributed import hosts
from minmax_jax.runs.building import deleted_fields, fields
from minmax_jax.runs.folder import digests

logger = logging.getLogger(__name__)
# Fields that may change between two starts: where a run reads, how it computes and what it shows, not what it computes.
_FREE = (
    *("data.cache_gib", "data.dir", "data.folds", "data.microns_per_pixel", "data.num_workers"),
    *("evaluation.batch_size", "train.checkpoint_every", "train.log_every", "train.tensorboard"),
)


# Computed anew from the selected model.
_SECOND_STAGE = "refine."


class WorkdirError(UserError, ValueError):
    """A folder that a run cannot use; the message names it and what to do."""


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file under another name and renames it, so that a killed run leaves the old one or the new one."""
    with disk.replacing(path) as replacement:
        replacement.write_text(strict_json.dumps(value, indent=2) + "\n")


def open_workdir(workdir: str | pathlib.Path, config: ml_collections.ConfigDict) -> pathlib.Path:
    """Creates the folder, or checks that it belongs to this configuration, which may have more epochs.

    Raises:
        WorkdirError: if the folder cannot be written, or has another configuration; the fields that differ are
            named.
    """
    folder = local_path("--workdir", workdir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(workdir, error) from error
    _check_config(folder, workdir, config)
    return folder


def check(
    workdir: str | pathlib.Path, config: ml_collections.ConfigDict, splits: Mapping[str, dataset.Split]
) -> pathlib.Path:
    """Checks all that `open_workdir`, `hold` and `claim` check, and writes nothing: the folder need not exist.

    Args:
        workdir: folder of the run.
        config: of the run.
        splits: as of `claim`.

    Raises:
        WorkdirError: if the folder cannot be written, or has another configuration or other data.
        LockedError: as of `hold`.
    """
    folder = local_path("--workdir", workdir).absolute()
    try:
        disk.check_writable(folder)
    except OSError as error:
        raise _not_writable(workdir, error) from error
    _check_config(folder, workdir, config)
    lock.check_free(folder)
    _check_splits(folder, splits)
    return folder


def _not_writable(workdir: str | pathlib.Path, error: OSError) -> WorkdirError:
    return WorkdirError(f"--workdir={str(workdir)!r} cannot be written ({error}). Choose another folder.")


def _check_config(folder: pathlib.Path, workdir: str | pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Raises WorkdirError, naming the fields, where the folder has another configuration."""
    if not (folder / "config.json").exists():
        return
    before, now = fields.flatten(read_config(folder)), fields.flatten(config)
    free = {*_FREE, "train.epochs"} if now["train.epochs"] > before.get("train.epochs", 0) else _FREE
    differing = [
        f"  config.{name}: {before.get(name)!r} in the workdir, {now.get(name)!r} now"
        for name in sorted((before.keys() | now.keys()).difference(free))
        if before.get(name) != now.get(name) and not name.startswith(_SECOND_STAGE)
    ]
    if differing:
        raise WorkdirError(
            f"--workdir={str(workdir)!r} has another configuration:\n"
            + "\n".join(differing)
            + "\nGive the same configuration to resume, or another workdir to start anew."
        )


def hold(folder: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Holds the lock of a run's folder; of several hosts, the main one does.

    Raises:
        LockedError: naming process, host and start of the work that holds it.
    """
    return lock.hold(folder) if hosts.is_main_host() else contextlib.nullcontext()


def claim(folder: pathlib.Path, config: ml_collections.ConfigDict, splits: Mapping[str, dataset.Split]) -> None:
    """Writes configuration and digests of the data; only for the process that holds the lock of the folder.

    Args:
        folder: of the run.
        config: of the run.
        splits: the splits of the data by name, such as "train".

    Raises:
        WorkdirError: if a split is not the one that the run was started with.
    """
    _check_splits(folder, splits)
    if not hosts.is_main_host():
        return
    path = folder / "config.json"
    if path.exists():
        _set_results_aside(folder, read_config(folder), config)
    write_json(path, config.to_dict())
    write_json(
        folder / "data.json",
        {name: {"num_images": len(split), "digest": digests.split_digest(split)} for name, split in splits.items()},
    )


def _check_splits(folder: pathlib.Path, splits: Mapping[str, dataset.Split]) -> None:
    """Raises WorkdirError where the folder belongs to a run on other data."""
    if differing := differing_splits(folder, splits):
        raise WorkdirError(
            f"{folder} belongs to a run on other data: {' '.join(differing)} Give the same data to resume, or another"
            " workdir to start anew."
        )


def differing_splits(folder: pathlib.Path, splits: Mapping[str, dataset.Split]) -> list[str]:
    """A sentence for each split that is not the one that the run was started with."""
    path = folder / "data.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    return [
        f"The {name} split has {len(split)} images, and had {known[name]['num_images']}; or names, classes,"
        " sizes, or the intensities or channels that are read, differ."
        for name, split in splits.items()
        if name in known and known[name]["digest"] != digests.split_digest(split)
    ]


def _set_results_aside(folder: pathlib.Path, before: ml_collections.ConfigDict, now: ml_collections.ConfigDict) -> None:
    """Says what more epochs mean; the results of fewer are kept under another name."""
    epochs = before.train.epochs
    if epochs == now.train.epochs:
        return
    if now.learning_rate.schedule == "cosine":
        meaning = "The learning rate, which had fallen along its cosine, rises to that of the longer one: not the same"
        meaning += " as a run of that length from the start."
    else:
        meaning = "The learning rate does not depend on the number of epochs: the same as a run of that length, but"
        meaning += " for a validation of the old last step where train.eval_every does not divide its epochs."
    logger.info("config.train.epochs is %d now, and was %d. %s", now.train.epochs, epochs, meaning)
    if (folder / "results.json").exists():
        (folder / "results.json").rename(folder / f"results_{epochs}_epochs.json")


def read_config(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run. Fields that are newer than the run have their defaults, which change nothing.

    Raises:
        WorkdirError: if the folder holds none.
        ConfigError: for a deleted field that was used.
        OSError: if it cannot be read at the moment.
    """
    path = folder / "config.json"
    try:
        content = ml_collections.ConfigDict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: no text, no JSON, no object
        raise WorkdirError(f"{path} cannot be read ({error}): {str(folder)!r} is not a workdir.") from error
    kept = deleted_fields.drop(path, content.to_dict())
    return _complete(ml_collections.ConfigDict(kept), common.get_config())


def _complete(config: ml_collections.ConfigDict, defaults: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The configuration with the defaults of all fields and groups that it lacks."""
    for name, default in defaults.items():
        if name not in config:
            config[name] = default
        elif isinstance(default, ml_collections.ConfigDict) and isinstance(config[name], ml_collections.ConfigDict):
            _complete(config[name], default)
    return config
