"""The folder of a run: one configuration, and files that are written completely or not at all."""

import json
import os
import pathlib
import tempfile
from typing import Any

import ml_collections

from minmax_jax.distributed import hosts
from minmax_jax.errors import UserError
from minmax_jax.paths import local_path
from minmax_jax.runs import config_checks


class WorkdirError(UserError, ValueError):
    """A folder that a run cannot use; the message names it and what to do."""


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file under another name and renames it, so that a killed run leaves the old one or the new one."""
    replacement = path.with_suffix(".new")
    with replacement.open("w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    replacement.replace(path)


def open_workdir(workdir: str | pathlib.Path, config: ml_collections.ConfigDict) -> pathlib.Path:
    """Creates the folder, or checks that it belongs to this configuration.

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
        raise WorkdirError(f"--workdir={str(workdir)!r} cannot be written ({error}). Choose another folder.") from error
    path = folder / "config.json"
    if not path.exists():
        if hosts.is_main_host():
            write_json(path, config.to_dict())
        return folder
    before, now = config_checks.flatten(read_config(folder)), config_checks.flatten(config)
    differing = [
        f"  config.{name}: {before.get(name)!r} in the workdir, {now.get(name)!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise WorkdirError(
            f"--workdir={str(workdir)!r} has another configuration:\n"
            + "\n".join(differing)
            + "\nGive the same configuration to resume, or another workdir to start anew."
        )
    return folder


def read_config(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run.

    Raises:
        WorkdirError: if the folder holds none.
    """
    path = folder / "config.json"
    try:
        return ml_collections.ConfigDict(json.loads(path.read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise WorkdirError(f"{path} cannot be read ({error}): {str(folder)!r} is not a workdir.") from error
