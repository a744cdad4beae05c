"""What keeps the processes of a job from finding each other is said before they wait for each other."""

import os
import re
import socket
import subprocess
import sys

import pytest

from minmax_jax.distributed import hosts
from tests import programs

_START = """
import sys
from minmax_jax.experiments import program
sys.modules["__main__"].__doc__ = ""
program.run(lambda: program.start(keeps_compiled=False))
"""
# What JAX raises where processes do not reach each other comes from this one alone.
_OUT_OF_REACH = """
import jax
from jax.experimental import multihost_utils

def fail(number):
    raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo context initialization failed: Connection refused")

multihost_utils.process_allgather = fail
"""


def _start(code, *flags):
    """What is said by a process of its own: JAX wants to know of the job before all else."""
    jobs = ("SLURM_", "OMPI_", "KUBERNETES_", "JAX_COORDINATOR_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(jobs)}
    program = [sys.executable, "-c", code, *flags]
    done = subprocess.run(program, cwd=programs.ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    "given, message",
    [
        (("host0", 2, 0), "coordinator='host0' must be an address and a port"),
        ((":12345", 2, 0), "coordinator=':12345'"),
        (("127.0.0.1:port", 2, 0), "coordinator='127.0.0.1:port'"),
        (("127.0.0.1:65536", 2, 0), "coordinator='127.0.0.1:65536'"),
        (("127.0.0.1:12345",), "process_id=0 .*num_processes=0"),
        (("127.0.0.1:12345", 2, 2), "process_id=2 .*num_processes=2"),
        (("127.0.0.1:12345", 2, -1), "process_id=-1 .*num_processes=2"),
        (("", 2, 1), "num_processes=2 and process_id=1 need a coordinator"),
    ],
)
def test_what_does_not_fit_together(given, message):
    with pytest.raises(ValueError, match=message):
        hosts.join(*given)


def _knows_no_name(host, *args, **kwargs):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_names_without_an_address(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(socket, "getaddrinfo", _knows_no_name)
    with pytest.raises(OSError, match="coordinator='host0:12345': host0 has no address .Name or service"):
        hosts.join("host0:12345", 2, 1)
    with pytest.raises(OSError, match="This host's name, 'node7', has no address .*: add a line 'ADDRESS node7'"):
        hosts.join()


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"process 0 cannot listen at port {port} .Address already in use"):
            hosts.join(f"127.0.0.1:{port}", 2, 0)


def test_an_own_name_that_stands_for_another_host(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "198.51.100.7")  # Kept for documentation: nobody has it.
    with pytest.raises(OSError, match=re.escape("has the address 198.51.100.7, which is not its own: add")):
        hosts.join()


def test_no_job_where_one_is_promised():
    *_, error, _ = _start(_START, "--multihost")
    assert "no job of a TPU pod, SLURM or Open MPI" in error


def test_processes_that_do_not_reach_each_other():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    *_, error, _ = _start(_OUT_OF_REACH + _START, f"--coordinator={address}", "--num_processes=1", "--process_id=0")
    assert error.startswith("Error: The processes of this job do not reach each other (UNKNOWN: Gloo context")
    assert "/etc/hosts of each host must map its own name" in error
