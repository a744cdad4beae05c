"""Several hosts: two processes of two devices each do what one process of four does."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from tests import one_host

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_two_hosts_do_what_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=2")
    hosts = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.one_host", address, "2", str(process_id), str(tmp_path / "two")],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process_id in range(2)
    ]
    expected = one_host.train(tmp_path / "one")
    outputs = [host.communicate(timeout=240) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    for output, _ in outputs:
        found = json.loads(output.splitlines()[-1])
        assert found.pop("losses") == pytest.approx(expected["losses"], rel=1e-4)
        assert found == {"num_devices": 4, "selected_step": 3, "shares": [0, 1, 2, 3, 4]}
