"""One training in a folder at a time, and none that a dead one keeps out."""

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from minmax_jax.base import lock

_HOLD = (
    "import pathlib, sys, time\n"
    "from minmax_jax.base import lock\n"
    "with lock.hold(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def _start_holder(folder):
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def _pretend(folder, **changes):
    """A lock that another process left."""
    with lock.hold(folder):
        content = json.loads((folder / lock.NAME).read_text())
    (folder / lock.NAME).write_text(json.dumps(content | changes))


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    holder = _start_holder(tmp_path)
    try:
        with pytest.raises(lock.LockedError, match=rf"workdir='{re.escape(str(tmp_path))}' .*process {holder.pid} on "):
            lock.hold(tmp_path).__enter__()
    finally:
        holder.kill()
        holder.communicate()
    started = time.monotonic()
    with lock.hold(tmp_path):  # The killed process keeps nobody out, and nobody waits for it.
        assert json.loads((tmp_path / lock.NAME).read_text())["process"] == os.getpid()
    assert time.monotonic() - started < 1
    assert (tmp_path / lock.NAME).read_text() == ""


def test_looking_at_a_lock_leaves_no_trace(tmp_path):
    lock.check_free(tmp_path / "none")
    lock.check_free(tmp_path)
    assert not list(tmp_path.iterdir())
    with lock.hold(tmp_path), pytest.raises(lock.LockedError, match=rf"--output='{re.escape(str(tmp_path))}' .* draws"):
        lock.check_free(tmp_path, flag="--output", work="draws")
    _pretend(tmp_path)  # of a process of this machine that is gone
    before = (tmp_path / lock.NAME).read_text()
    lock.check_free(tmp_path)
    assert before and (tmp_path / lock.NAME).read_text() == before
    with lock.hold(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"{}"])
def test_a_lock_that_was_not_written_completely_keeps_nobody_out(tmp_path, content):
    (tmp_path / lock.NAME).write_bytes(content)
    with lock.hold(tmp_path):
        pass


def test_a_silent_process_of_another_host_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_SECONDS_BETWEEN_SIGNS", 0.02)
    _pretend(tmp_path, host="node7", machine="node7 boot 1")
    with lock.hold(tmp_path):
        pass


def test_a_living_process_of_another_host_is_not(tmp_path, monkeypatch):
    """As on a file system that keeps file locks of one host from the others: only the time of the file changes."""
    monkeypatch.setattr(lock, "_SECONDS_BETWEEN_SIGNS", 0.1)
    _pretend(tmp_path, host="node7", machine="node7 boot 1", process=7)
    ended = threading.Event()

    def touch():
        while not ended.wait(0.05):
            os.utime(tmp_path / lock.NAME)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(lock.LockedError, match="process 7 on node7"), lock.hold(tmp_path):
            pass
    finally:
        ended.set()
        thread.join()


def test_the_holder_gives_signs(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_SECONDS_BETWEEN_SIGNS", 0.05)
    with lock.hold(tmp_path):
        before = os.stat(tmp_path / lock.NAME).st_mtime_ns
        time.sleep(0.3)
        assert os.stat(tmp_path / lock.NAME).st_mtime_ns > before


def test_a_file_system_without_file_locks(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "_SECONDS_BETWEEN_SIGNS", 0.05)
    with lock.hold(tmp_path), pytest.raises(lock.LockedError, match=f"process {os.getpid()} on "):
        lock.hold(tmp_path).__enter__()
    with lock.hold(tmp_path):
        pass
