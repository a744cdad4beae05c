"""Programs whose work several processes share: the share of this one, and how one command starts all of a machine."""

from collections.abc import Sequence
import contextlib
import logging
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, NoReturn

from absl import flags

from minmax_jax.base import shares
from minmax_jax.base.errors import OptionError

_PIPE = "MINMAX_JAX_PARENT_PIPE"  # a file descriptor, which closes when the process that started this one ends
_NVIDIA = pathlib.Path("/proc/driver/nvidia/gpus")
_MAX_SHOWN = 4000  # characters of what a process wrote
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_FOR_THE_FIRST = 10.0  # to fail as another process did


def find_share() -> shares.Share | None:
    """The share of this process by the flags of `program`; None if it is to start all --num_processes itself.

    Under a launcher, the process sees the GPU of its number on its host alone, if JAX has not looked for devices yet.

    Raises:
        OptionError: for flags that do not fit each other.
    """
    count, index, is_launched = (flags.FLAGS[name] for name in ("num_processes", "process_id", "multihost"))
    if flags.FLAGS["coordinator"].value:
        raise OptionError("coordinator is for training: these processes need no connection. Leave it out.")
    if is_launched.value:
        if count.present or index.present:
            raise OptionError("multihost takes num_processes and process_id from the launcher. Leave them out.")
        share = shares.of_launcher()
        if share.count > 1:
            os.environ.update(_see_one_gpu(share.local_index))
        return share
    if not count.present and not index.present:
        return shares.ALL
    if count.value < 1:
        raise OptionError(f"num_processes={count.value} must be at least 1.")
    if index.present:
        share = shares.check(index.value, count.value)
        _follow_parent(share)
        return share
    return shares.ALL if count.value == 1 else None


def run_all(program: str, argv: Sequence[str], count: int, *, stdin: str = "", takes_gpus: bool = True) -> int:
    """Runs a program in several processes of this machine, which find their shares by `find_share`.

    The first process reports its progress. What the others write is shown in the end. They end with this process.

    Args:
        program: name of its module in this package.
        argv: of this process, with --num_processes.
        count: number of processes, at most one for each GPU that is seen here.
        stdin: what each of them reads there.
        takes_gpus: whether each one takes a GPU, where there are any; otherwise they see none.

    Returns:
        The exit status: the first one that is not 0.

    Raises:
        OptionError: if there are fewer GPUs than processes.
    """
    if takes_gpus and 0 < len(_visible_gpus()) < count:
        raise OptionError(
            f"num_processes={count}: there is a GPU for {len(_visible_gpus())} processes here. Start no more than that,"
            " or set JAX_PLATFORMS=cpu."
        )
    reading, writing = os.pipe()
    started: list[tuple[subprocess.Popen, IO[str] | None]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reading)
        stack.callback(os.close, writing)
        given = stack.enter_context(tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape"))
        given.write(stdin)
        given.flush()
        try:
            for index in range(count):
                command = [sys.executable, "-m", f"{__package__}.{program}", f"--process_id={index}", *argv[1:]]
                log = stack.enter_context(tempfile.TemporaryFile("w+", errors="backslashreplace")) if index else None
                platform = _see_one_gpu(index) if takes_gpus else {"JAX_PLATFORMS": "cpu"}
                # They import what this process does: a file of the current folder takes the place of no module.
                modules = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
                environment = os.environ | platform | modules | {_PIPE: str(reading)}
                with open(given.name, "rb") as file:  # a file position of each: they read it at the same time
                    child = subprocess.Popen(command, stdin=file, stderr=log, env=environment, pass_fds=[reading])
                started.append((child, log))
            return _wait(started)
        except BaseException:
            for child, _ in started:
                child.terminate()
            for child, _ in started:
                child.wait()
            raise


def _wait(started: Sequence[tuple[subprocess.Popen, IO[str] | None]]) -> int:
    """Waits for all processes; shows what each of the others wrote when it has ended.

    Where all fail for one reason, only the first one's message is shown: another waits some seconds for it.
    """
    first, waiting, since = started[0][0], dict(enumerate(started)), {}
    while waiting:
        for index, (child, log) in list(waiting.items()):
            status = child.poll()
            if status is None:
                continue
            since.setdefault(index, time.monotonic())
            is_alone = status != 1 or time.monotonic() - since[index] > _SECONDS_FOR_THE_FIRST
            if index and not is_alone and first.poll() is None:
                continue
            del waiting[index]
            if log is not None and (first.poll() != 1 or status < 0):
                log.seek(0)
                if written := log.read()[-_MAX_SHOWN:].strip():
                    print(f"Process {index}:\n{written}", file=sys.stderr)
            if status < 0:
                print(f"Process {index} was ended by {signal.Signals(-status).name}.", file=sys.stderr)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    statuses = [child.returncode for child, _ in started]
    return next((status if status > 0 else 1 for status in statuses if status), 0)


def _visible_gpus() -> list[str]:
    """NVIDIA GPUs that JAX would see, by the names that CUDA_VISIBLE_DEVICES gives them."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(_NVIDIA.glob("*"))]


def _see_one_gpu(local_index: int) -> dict[str, str]:
    """What a process of this host must have in its environment to see the GPU of its number alone.

    A scheduler may show each process a single GPU, its own.
    """
    gpus = _visible_gpus()
    return {"CUDA_VISIBLE_DEVICES": gpus[local_index % len(gpus)]} if len(gpus) > 1 else {}


def _follow_parent(share: shares.Share) -> None:
    """If `run_all` started this process: it ends when its parent does, even by a kill; the first one alone reports."""
    pipe = os.environ.pop(_PIPE, "")
    if not pipe:
        return
    if share.index:
        logging.getLogger("minmax_jax").setLevel(logging.WARNING)

    def wait() -> NoReturn:
        os.read(int(pipe), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()
