"""The processes of a job, one per host or GPU: how they connect, share work and exchange results."""

from collections.abc import Sequence
import itertools
import logging
import os
import pickle
import re
import socket
from typing import Any

import jax
from jax import lax
from jax.experimental import multihost_utils
import numpy as np

from minmax_jax.base.errors import OptionError, UserError

logger = logging.getLogger(__name__)
# Seconds that the processes wait for the last of them.
_JOIN_TIMEOUT = 300
# Seconds without a heartbeat after which a process counts as dead and the job ends; JAX's default is 100.
_HEARTBEAT_TIMEOUT = 60
# Seconds that finished processes wait for the main one, which draws the pictures.
_SHUTDOWN_TIMEOUT = 3600


class JobError(UserError, OSError):
    """The processes of a job cannot connect; the message says what to change."""


def join(coordinator: str = "", num_processes: int = 0, process_id: int = 0) -> None:
    """Joins the processes of a job; the first call to JAX in each of them.

    Args:
        coordinator: address and port of process 0; "" reads them from the TPU pod, SLURM or Open MPI.
        num_processes: number of processes of the job; only with a coordinator.
        process_id: number of this process, from 0; only with a coordinator.

    Raises:
        OptionError: if the arguments do not fit each other.
        JobError: if there is no job, the name of the coordinator or of this host has no address, the port is taken, or
            the processes do not reach each other.
    """
    _check(coordinator, num_processes, process_id)
    _check_own_name()
    # The preemption service would handle SIGTERM and let the process continue; nothing here asks it.
    jax.config.update("jax_enable_preemption_service", False)
    timeouts = {
        "initialization_timeout": _JOIN_TIMEOUT,
        "heartbeat_timeout_seconds": _HEARTBEAT_TIMEOUT,
        "shutdown_timeout_seconds": _SHUTDOWN_TIMEOUT,
    }
    if coordinator:
        waiting = "Process %d of %d, with process 0 at %s, waits for the others, at most %d seconds."
        logger.info(waiting, process_id, num_processes, coordinator, _JOIN_TIMEOUT)
        jax.distributed.initialize(coordinator, num_processes, process_id, **timeouts)
    else:
        _join_as_started(timeouts)
    _meet()


def leave() -> None:
    """Leaves the job when all its processes are ready to."""
    jax.distributed.shutdown()


def _join_as_started(timeouts):
    logger.info("Waiting for the other processes, at most %d seconds.", _JOIN_TIMEOUT)
    try:
        jax.distributed.initialize(**timeouts)
    except ValueError as error:
        raise JobError(
            f"There is no job of a TPU pod, SLURM or Open MPI here ({error}). Start the program by one of them, or give"
            " coordinator, num_processes and process_id."
        ) from error


def _meet():
    """Exchanges a number between all devices and all processes while these are synchronous.

    CPUs connect in their first collective and wait only 30 seconds for each other: a host that must compile a program
    which another host has in its cache would come too late. Later collectives wait.
    """
    number = np.ones(jax.local_device_count())
    try:
        jax.block_until_ready(jax.pmap(lambda x: lax.psum(x, "all"), axis_name="all")(number))
        multihost_utils.process_allgather(number[:1])
    except jax.errors.JaxRuntimeError as error:
        raise JobError(
            f"The processes of this job do not reach each other ({error}). If all were started: /etc/hosts of each host"
            " must map its own name to the address where others reach it, not to 127.0.1.1 as on Debian."
        ) from error


def _check(coordinator, num_processes, process_id):
    if not coordinator:
        if num_processes or process_id:
            raise OptionError(
                f"num_processes={num_processes} and process_id={process_id} need a coordinator: give all processes the"
                " address and port of process 0, such as host0:12345."
            )
        return
    host, _, port = coordinator.rpartition(":")
    if not (host and re.fullmatch("[0-9]{1,5}", port) and int(port) < 2**16):
        raise OptionError(f"coordinator={coordinator!r} must be an address and a port, such as host0:12345.")
    if not 0 <= process_id < num_processes:
        raise OptionError(
            f"process_id={process_id} must be at least 0 and less than num_processes={num_processes}, equal in all."
        )
    try:
        socket.getaddrinfo(host.strip("[]"), port)
    except OSError as error:
        raise JobError(f"coordinator={coordinator!r}: {host} has no address ({error.strerror}).") from error
    if process_id == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise JobError(
                f"coordinator={coordinator!r}: process 0 cannot listen at port {port} ({os.strerror(error.errno)})."
                " If it is not running already, give all processes a free port."
            ) from error


def _check_own_name():
    """Checks the address of this host's name: JAX listens there for collectives of CPUs, also on GPU hosts."""
    name = socket.gethostname()
    advice = f"add a line 'ADDRESS {name}' to /etc/hosts, with the address where other hosts reach this one."
    try:
        addresses = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise JobError(f"This host's name, {name!r}, has no address ({error.strerror}): {advice}") from error
    for family, kind, _, _, address in addresses:
        with socket.socket(family, kind) as listener:
            try:
                listener.bind(address)
                return
            except OSError:
                continue
    listed = ", ".join(dict.fromkeys(address[0] for *_, address in addresses))
    raise JobError(f"This host's name, {name!r}, has the address {listed}, which is not its own: {advice}")


def is_main_host() -> bool:
    """Whether this process writes files and logs."""
    return jax.process_index() == 0


def share_of_host(num_examples: int) -> np.ndarray:
    """Indices of the examples that this host evaluates."""
    return np.arange(jax.process_index(), num_examples, jax.process_count())


def gather_from_hosts(items: Sequence[Any]) -> list:
    """The items of all hosts, on each host, in the order of the examples that `share_of_host` assigned."""
    if jax.process_count() == 1:
        return list(items)
    content = np.frombuffer(pickle.dumps(items), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(content))).ravel()
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(content)] = content
    contents = multihost_utils.process_allgather(padded)
    shares = [pickle.loads(row[:length].tobytes()) for row, length in zip(contents, lengths)]
    gathered = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return [item for item in gathered if item is not None]
