"""What all hosts of a job must have in common, compared before they train: where one differs, all end at once."""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import pathlib
import tempfile
from typing import Any

import jax
import ml_collections

from minmax_jax import digests
from minmax_jax.data import dataset
from minmax_jax.distributed import pmap
from minmax_jax.runs import config_checks
from minmax_jax.state import TrainState


class DisagreementError(ValueError):
    """The hosts of a job were given different things; the message names them, and the mend."""


def check_inputs(config: ml_collections.ConfigDict, splits: Mapping[str, dataset.Split], folder: pathlib.Path) -> None:
    """Compares configuration, data and folder.

    Args:
        config: of this host.
        splits: of this host, by name; names, labels and sizes are compared, not pixels.
        folder: of this host, whatever its name there.

    Raises:
        DisagreementError: on all hosts, where any differs from host 0.
    """
    if jax.process_count() == 1:
        return
    with _marker(folder) as written:
        marker = folder / pmap.gather_from_hosts([written])[0]
        mine = {f"config.{name}": value for name, value in config_checks.flatten(config).items()}
        mine |= {f"the {name} split": _describe(split) for name, split in splits.items()}
        mine["what host 0 wrote to the workdir"] = "there" if marker.exists() else "not there"
        _compare(mine, "Give all the same configuration, copies of the same data, and one workdir that all see")


def check_state(state: TrainState) -> None:
    """Compares the states from which the hosts go on.

    Raises:
        DisagreementError: on all hosts, where any differs from host 0.
    """
    if jax.process_count() == 1:
        return
    mine = {"the step to go on from": int(state.step), "the digest of the state": digests.state_digest(state)}
    _compare(mine, "Give all the same pretrained weights, and one workdir whose checkpoints all see")


@contextlib.contextmanager
def _marker(folder: pathlib.Path) -> Iterator[str]:
    """Name of a new file of the main host in the folder; empty on the others."""
    if not pmap.is_main_host():
        yield ""
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-by-all-") as file:
        yield pathlib.Path(file.name).name


def _describe(split: dataset.Split) -> str:
    sha = hashlib.sha256(repr((split.names, split.class_names)).encode())
    sha.update(split.labels.tobytes() + split.sizes.tobytes())
    return f"{len(split)} images, digest {sha.hexdigest()[:8]}"


def _compare(mine: dict[str, Any], mend: str) -> None:
    hosts = pmap.gather_from_hosts([mine])
    differing = [
        f"  {name}: {hosts[0].get(name)!r} on host 0, {other.get(name)!r} on host {index}"
        for index, other in enumerate(hosts)
        for name in hosts[0] | other
        if hosts[0].get(name) != other.get(name)
    ]
    if differing:
        raise DisagreementError("\n".join(["The hosts of this job differ:", *differing, f"{mend}."]))
