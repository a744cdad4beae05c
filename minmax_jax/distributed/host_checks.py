"""Checks before training that all hosts of a job were given the same: where one differs, all stop at once."""

from collections.abc import Iterator, Mapping
import contextlib
import pathlib
import tempfile
from typing import Any

import jax

from minmax_jax.base.errors import UserError
from minmax_jax.distributed import hosts


class HostsDifferError(UserError, ValueError):
    """The hosts of a job were given different inputs; the message names them and says what to do."""


def check_equal(values: Mapping[str, Any], *, advice: str) -> None:
    """Compares values of this host with those of the others.

    Args:
        values: by description; they must be picklable and comparable.
        advice: what to do where they differ.

    Raises:
        HostsDifferError: on all hosts, if a value differs from that of host 0.
    """
    if jax.process_count() == 1:
        return
    of_hosts = hosts.gather_from_hosts([dict(values)])
    differing = [
        f"  {name}: {of_hosts[0].get(name)!r} on host 0, {other.get(name)!r} on host {index}"
        for index, other in enumerate(of_hosts)
        for name in of_hosts[0] | other
        if of_hosts[0].get(name) != other.get(name)
    ]
    if differing:
        raise HostsDifferError("\n".join(["The hosts of this job differ:", *differing, advice]))


def check_shared_folder(folder: pathlib.Path) -> None:
    """Checks that all hosts see one folder, whatever its path on each.

    Raises:
        HostsDifferError: on all hosts, if a host does not see a file that host 0 writes.
    """
    if jax.process_count() == 1:
        return
    with _marker(folder) as written:
        marker = folder / hosts.gather_from_hosts([written])[0]
        seen = {f"file {marker.name} in the workdir": "exists" if marker.exists() else "missing"}
        check_equal(seen, advice="Give all hosts one workdir on a file system that they share.")


@contextlib.contextmanager
def _marker(folder: pathlib.Path) -> Iterator[str]:
    """Name of a new file of the main host in the folder; empty on the others."""
    if not hosts.is_main_host():
        yield ""
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-by-all-") as file:
        yield pathlib.Path(file.name).name
