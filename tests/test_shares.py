"""Shares of files between processes: by flags, by launchers, and as processes of one machine."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

from absl import flags
from minmax_jax.experiments import process, processes, program
import pytest

from minmax_jax.base import shares
from minmax_jax.base.errors import OptionError

_STEP = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}


def _array(task: int, least: int, most: int, count: int, step: int = 1) -> dict[str, str]:
    values = {"ID": task, "MIN": least, "MAX": most, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize("count", [1, 2, 4, 11])
def test_shares_hold_each_item_once(count):
    items = list(range(10))
    parts = [shares.check(index, count).of(items) for index in range(count)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (_STEP, (3, 8, 1)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, (1, 2, 0)),
        # mpirun within a step of SLURM.
        (_STEP | {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2, 0)),
        (_array(12, 10, 14, 3, 2), (1, 3, 0)),
        (_array(3, 3, 3, 1), (0, 1, 0)),
        # SLURM numbers the one process of a batch script, which is no step.
        (_array(1, 0, 3, 4) | {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, (1, 4, 0)),
        (_array(1, 0, 3, 4) | _STEP, (11, 32, 1)),
    ],
)
def test_a_launcher_numbers_the_processes(environment, expected):
    assert shares.of_launcher(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "multihost: neither srun, nor a SLURM job array, nor mpirun"),
        (_array(7, 3, 7, 2), "multihost: the tasks of this SLURM job array, 2 from 3 to 7, have gaps"),
    ],
)
def test_a_process_without_number_is_refused(environment, message):
    with pytest.raises(OptionError, match=message):
        shares.of_launcher(environment)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], shares.ALL),
        (["--num_processes=1"], shares.ALL),
        (["--num_processes=3"], None),
        (["--num_processes=3", "--process_id=2"], (2, 3, 0)),
        (["--multihost"], (3, 8, 1)),
    ],
)
def test_flags_say_which_share(arguments, expected, given, monkeypatch):
    for name, value in _STEP.items():
        monkeypatch.setenv(name, value)
    given(arguments)
    assert processes.find_share() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--process_id=2"], "num_processes=0 must be at least 1"),
        (["--num_processes=-1"], "num_processes=-1 must be at least 1"),
        (["--num_processes=2", "--process_id=2"], "process_id=2 must be at least 0 and less than num_processes=2"),
        (["--num_processes=2", "--process_id=-1"], "process_id=-1 must be at least 0"),
        (["--multihost", "--num_processes=2"], "multihost takes num_processes and process_id from the launcher"),
        (["--coordinator=host:1", "--num_processes=2"], "coordinator is for training"),
    ],
)
def test_flags_that_do_not_fit_are_refused(arguments, message, given):
    given(arguments)
    with pytest.raises(OptionError, match=message):
        processes.find_share()


@pytest.fixture
def given():
    """Parses flags of `program`; those of other tests are not given."""

    def reset() -> None:
        process.reset_flags(program.__name__)

    def parse(arguments: list[str]) -> None:
        reset()
        flags.FLAGS(["program", *arguments])

    yield parse
    reset()


def test_each_process_sees_a_gpu_of_its_own(given, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    for name, value in _STEP.items():
        monkeypatch.setenv(name, value)
    given(["--multihost"])
    processes.find_share()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    processes.find_share()  # one that a scheduler shows it alone stays
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(OptionError, match="num_processes=3: there is a GPU for 2 processes here"):
        processes.run_all("predict", ["predict"], 3)


# A program in the place of a real one, which reads a list and ends as its number says.
_PROGRAM = """
import os, pathlib, sys, time
index = int(sys.argv[1].partition("=")[2])
folder = pathlib.Path(sys.argv[2])
(folder / str(index)).write_text(sys.stdin.read())
print("written by", index, file=sys.stderr)
if "wait" in sys.argv:
    from absl import flags
    from minmax_jax.experiments import processes, program
    flags.FLAGS([sys.argv[0], "--num_processes=2", sys.argv[1]])
    processes.find_share()
    (folder / f"{index}.ready").touch()
    time.sleep(60)
sys.exit(int(sys.argv[3 + index]))
"""
_START = """
import sys
sys.path = [path for path in sys.path if path] + [sys.argv[2]]
from minmax_jax.experiments import processes
processes.__package__ = "stand_in"
sys.exit(processes.run_all("worker", ["worker", *sys.argv[2:]], 2, stdin="a\\nb\\n"))
"""


@pytest.fixture
def command(tmp_path):
    package = tmp_path / "stand_in"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "worker.py").write_text(_PROGRAM)
    return [sys.executable, "-c", _START, "--", str(tmp_path)]


@pytest.mark.parametrize(
    ("ends", "status", "message"),
    [(("0", "0"), 0, "by 0"), (("0", "1"), 1, "by 0"), (("3", "0"), 3, "by 0"), (("1", "1"), 1, "by 0")],
)
def test_processes_read_the_same_list_and_report_a_failure_once(command, ends, status, message, tmp_path):
    done = subprocess.run([*command, *ends], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert [(tmp_path / name).read_text() for name in "01"] == ["a\nb\n", "a\nb\n"]
    assert message in done.stderr
    assert done.stderr.count("written by 1") == (ends[0] != "1")  # an error of all is not repeated


@pytest.mark.parametrize("index", [0, 1])
def test_the_death_of_a_process_is_told(command, index, tmp_path):
    parent = subprocess.Popen([*command, "wait"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    _wait_until(lambda: all((tmp_path / f"{index}.ready").exists() for index in range(2)))
    for number, line in _children(tmp_path).items():
        os.kill(int(number), signal.SIGKILL if f"process_id={index}" in line else signal.SIGTERM)
    _, written = parent.communicate(timeout=60)
    assert parent.returncode == 1 and f"Process {index} was ended by SIGKILL." in written


def test_files_of_the_current_folder_take_the_place_of_no_module(command, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "copy.py").write_text("raise SystemExit('a file of the user')")
    done = subprocess.run([*command, "0", "0"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_one_that_started_them(command, number, tmp_path):
    parent = subprocess.Popen([*command, "wait"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    _wait_until(lambda: all((tmp_path / f"{index}.ready").exists() for index in range(2)))
    assert len(_children(tmp_path)) == 2
    parent.send_signal(number)
    parent.wait()
    _wait_until(lambda: not _children(tmp_path))


def _children(folder) -> dict[str, str]:
    """Command lines of processes, by their numbers."""
    lines = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            lines[path.parent.name] = path.read_bytes().decode(errors="replace")
    return {number: line for number, line in lines.items() if "stand_in.worker" in line and str(folder) in line}


def _wait_until(is_so) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)
