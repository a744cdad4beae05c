"""The processes of a job, one a host or a GPU: how they find each other, and how they part."""

import logging
import os
import re
import socket

import jax
from jax import lax
from jax.experimental import multihost_utils
import numpy as np

logger = logging.getLogger(__name__)
# Seconds until the last of them must have come.
_JOIN_TIMEOUT = 300
# Seconds without a sign of life until a process counts as dead, and the job ends; JAX's own choice is 100.
_HEARTBEAT_TIMEOUT = 60
# Seconds that processes which are ready wait for the main one, which draws the pictures.
_SHUTDOWN_TIMEOUT = 3600


def join(coordinator: str = "", num_processes: int = 0, process_id: int = 0) -> None:
    """Joins the processes of a job; the first call to JAX in each of them.

    Args:
        coordinator: address and port of process 0; "" lets a TPU pod, SLURM or Open MPI tell.
        num_processes: in the job; only with a coordinator.
        process_id: of this process, from 0; only with a coordinator.

    Raises:
        ValueError: what is given does not fit together, or nothing is given and no job is found.
        OSError: the name of the coordinator or of this host stands for no address, the port is taken, or the
            processes do not reach each other.
    """
    _check(coordinator, num_processes, process_id)
    _check_own_name()
    # The preemption service would take SIGTERM and let the process go on; nothing here asks it.
    jax.config.update("jax_enable_preemption_service", False)
    timeouts = {
        "initialization_timeout": _JOIN_TIMEOUT,
        "heartbeat_timeout_seconds": _HEARTBEAT_TIMEOUT,
        "shutdown_timeout_seconds": _SHUTDOWN_TIMEOUT,
    }
    if coordinator:
        waiting = "Process %d of %d, with process 0 at %s, waits for the others, for %d seconds at most."
        logger.info(waiting, process_id, num_processes, coordinator, _JOIN_TIMEOUT)
        jax.distributed.initialize(coordinator, num_processes, process_id, **timeouts)
    else:
        _join_as_started(timeouts)
    _meet()


def is_joined() -> bool:
    """Whether this process is one of a job."""
    return jax.distributed.is_initialized()


def leave() -> None:
    """Leaves the job, when all its processes are ready to."""
    jax.distributed.shutdown()


def _join_as_started(timeouts):
    logger.info("Waits for the other processes, for %d seconds at most.", _JOIN_TIMEOUT)
    try:
        jax.distributed.initialize(**timeouts)
    except ValueError as error:
        raise ValueError(
            f"No job of a TPU pod, SLURM or Open MPI is found here ({error}): start the program by one of them, or name"
            " the coordinator, num_processes and process_id"
        ) from error


def _meet():
    """Exchanges a number between all devices, and between all processes, while these are at the same place.

    CPUs connect in their first exchange, and wait only 30 seconds for each other there: programs that one host compiles
    and another has in its cache are further apart. Later exchanges wait.
    """
    number = np.ones(jax.local_device_count())
    try:
        jax.block_until_ready(jax.pmap(lambda x: lax.psum(x, "all"), axis_name="all")(number))
        multihost_utils.process_allgather(number[:1])
    except jax.errors.JaxRuntimeError as error:
        raise OSError(
            f"The processes of this job do not reach each other ({error}). If all were there: on each host, /etc/hosts"
            " must give the host's own name the address where others reach it, not 127.0.1.1 as Debian has it"
        ) from error


def _check(coordinator, num_processes, process_id):
    if not coordinator:
        if num_processes or process_id:
            raise ValueError(
                f"num_processes = {num_processes} and process_id = {process_id} go with a coordinator, and none is"
                " named: give address and port of process 0, such as host0:12345, to all processes"
            )
        return
    host, _, port = coordinator.rpartition(":")
    if not (host and re.fullmatch("[0-9]{1,5}", port) and int(port) < 2**16):
        raise ValueError(f"coordinator = '{coordinator}' is not an address and a port, such as host0:12345")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"process_id = {process_id} does not go with num_processes = {num_processes}: each process of N has one of"
            " the process_ids 0 to N - 1, and all have the same num_processes"
        )
    try:
        socket.getaddrinfo(host.strip("[]"), port)
    except OSError as error:
        raise OSError(f"coordinator = '{coordinator}': {host} stands for no address ({error.strerror})") from error
    if process_id == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise OSError(
                f"coordinator = '{coordinator}': process 0 cannot listen at port {port} ({os.strerror(error.errno)})."
                " Either it runs already, or name a free port to all processes"
            ) from error


def _check_own_name():
    """Where CPUs exchange, JAX listens at the address that this host's name stands for, on GPU hosts as well."""
    name = socket.gethostname()
    mend = f"add a line 'ADDRESS {name}' to /etc/hosts, with the address where other hosts reach this one"
    try:
        addresses = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(f"This host's name, '{name}', stands for no address ({error.strerror}): {mend}") from error
    for family, kind, _, _, address in addresses:
        with socket.socket(family, kind) as listener:
            try:
                listener.bind(address)
                return
            except OSError:
                continue
    found = ", ".join(dict.fromkeys(address[0] for *_, address in addresses))
    raise OSError(f"This host's name, '{name}', stands for {found}, which is none of its own addresses: {mend}")
