"""Several hosts: two processes of two devices each do what one process on one device does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest

from minmax_jax.report import metric_records
from minmax_jax.runs.folder import checkpoints
from tests import one_host, programs


def _free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def _start_both(command, tmp_path, flags_of=lambda index: []):
    """Two processes of two devices; what they write goes to files, because nobody reads while they run."""
    env = os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=2")}
    processes = []
    for index in range(2):
        with (tmp_path / f"{index}.out").open("w") as out, (tmp_path / f"{index}.err").open("w") as err:
            argv = [*command, *flags_of(index)]
            processes.append(subprocess.Popen(argv, cwd=programs.ROOT, env=env, stdout=out, stderr=err))
    return processes


def _wait_for_both(processes, tmp_path):
    """Status, stdout and stderr of each."""
    codes = [process.wait(timeout=240) for process in processes]
    return [
        (code, *((tmp_path / f"{i}.{name}").read_text() for name in ("out", "err"))) for i, code in enumerate(codes)
    ]


def _on_host(state):
    return jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


@pytest.mark.slow
def test_two_hosts_do_what_one_device_does_and_read_each_others_checkpoints(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    with jax.enable_x64(True):
        expected = one_host.train(one)
        later = one_host.go_on(one)
    address = _free_address()
    command = [sys.executable, "-m", "tests.one_host", address, "2"]
    hosts = _start_both(command, tmp_path, lambda index: [str(index), str(two), str(one)])
    for code, out, err in _wait_for_both(hosts, tmp_path):
        assert code == 0, err
        found = json.loads(out.splitlines()[-1])
        assert found["num_devices"] == 4 and found["shares"] == [0, 1, 2, 3, 4]
        np.testing.assert_allclose(found["losses"], expected, rtol=1e-6)
        np.testing.assert_allclose(found["later"], later, rtol=1e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(one_host.go_on(two), later, rtol=1e-6)
        for index, case in enumerate(one_host.CASES):
            fresh, _ = one_host.create(*case)
            states = [checkpoints.Checkpoints(folder / str(index)).restore_newest(fresh)[0] for folder in (one, two)]
            chex.assert_trees_all_close(*map(_on_host, states), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_killed_process_ends_the_job_with_a_message_and_the_same_command_resumes(tmp_path):
    flags = ["--config.train.checkpoint_every=1"]

    def start(folder):
        command = programs.command(folder, *flags, f"--coordinator={_free_address()}", "--num_processes=2")
        return _start_both(command, tmp_path, lambda index: [f"--process_id={index}"])

    killed, reference = tmp_path / "killed", tmp_path / "reference"
    hosts = start(killed)
    while hosts[0].poll() is None and programs.last_step(killed) < 3:
        time.sleep(0.02)
    hosts[0].send_signal(signal.SIGKILL)
    (code, _, _), (other, _, _) = _wait_for_both(hosts, tmp_path)
    assert code == -signal.SIGKILL and other != 0
    assert 3 <= programs.last_step(killed) < 8
    for folder in (killed, reference):
        for index, (code, out, err) in enumerate(_wait_for_both(start(folder), tmp_path)):
            assert code == 0, err
            assert out.count("Results: ") == (1 if index == 0 else 0)
    results = [json.loads((folder / "results.json").read_text()) for folder in (killed, reference)]
    for name in ("test", "step", "state_digest"):
        assert results[0][name] == results[1][name]
    steps = [line["step"] for line in metric_records.read(killed / "metrics.jsonl") if line["kind"] == "train"]
    assert steps == list(range(1, 9))


@pytest.mark.slow
def test_hosts_that_were_given_different_things_end_before_they_train(tmp_path):
    command = programs.command(tmp_path / "0", f"--coordinator={_free_address()}", "--num_processes=2")
    differing = ["--config.seed=5", "--config.data.num_validation=6"]
    hosts = _start_both(command, tmp_path, lambda index: [f"--process_id={index}", *differing * index])
    for code, _, err in _wait_for_both(hosts, tmp_path):
        assert code == 1
        first, *lines = err[err.index("Error: ") :].splitlines()
        assert first == "Error: The hosts of this job differ:"
        assert lines[0] == "  config.data.num_validation: 8 on host 0, 6 on host 1"
        assert lines[1] == "  config.seed: 0 on host 0, 5 on host 1"
        assert lines[2].startswith("  digest of the validation split: '") and "Traceback" not in err


@pytest.mark.slow
def test_hosts_without_a_shared_workdir_end_before_they_train(tmp_path):
    command = programs.command(tmp_path / "0", f"--coordinator={_free_address()}", "--num_processes=2")
    other = [f"--workdir={tmp_path / '1'}"]
    hosts = _start_both(command, tmp_path, lambda index: [f"--process_id={index}", *other * index])
    for code, _, err in _wait_for_both(hosts, tmp_path):
        assert code == 1 and "Traceback" not in err
        assert "'exists' on host 0, 'missing' on host 1" in err and "Give all hosts one workdir" in err
