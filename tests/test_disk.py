"""Full disks and folders that nobody may write to, in every program; files that are replaced."""

import errno
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading

from minmax_jax.experiments import cli
import numpy as np
from PIL import Image
import pytest

from minmax_jax import interop
from minmax_jax.base import disk
from minmax_jax.base.errors import UserError
from tests import programs, saved_models

pytestmark = pytest.mark.usefixtures("own_flags")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run, an image and weights."""
    root = tmp_path_factory.mktemp("disk")
    saved_models.write(root / "run")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)).save(root / "image.png")
    interop.write_tensors(root / "in.safetensors", {"weight": np.zeros(50_000, np.float32)})
    return root


_COMMANDS = {
    "convert-weights": ("--input={root}/in.safetensors", "--output={out}/new.safetensors"),
    "predict": ("--workdir={root}/run", "--output={out}/predicted", "{root}/image.png"),
    "export": ("--workdir={root}/run", "--output={out}/model.onnx", "--format=onnx", "--size=32,32"),
}


def _message(monkeypatch, command, **paths):
    """What a program ends with, run in this process."""
    arguments = [argument.format(**paths) for argument in _COMMANDS[command]]
    monkeypatch.setattr(sys, "argv", ["minmax-jax", command, *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return str(ended.value.code)


@pytest.mark.parametrize("command", _COMMANDS)
def test_a_full_disk_names_folder_and_space(root, tmp_path, monkeypatch, no_compilation_cache, command):
    """The limit on the size of a file replaces it: the same writers fail, in the same places."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        message = _message(monkeypatch, command, root=root, out=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert message.startswith(f"Error: {tmp_path}"), message
    assert " cannot be written (File too large; " in message and "MiB are free" in message and "Make room" in message
    if command == "convert-weights":
        assert ", 0.2 MiB are needed)" in message  # 50,000 numbers of 4 bytes
    assert not list(tmp_path.glob("*.new"))


def test_the_folder_of_the_error_is_named_where_it_is_another(tmp_path):
    """Such as that of temporary files."""
    files = disk.explained(tmp_path / "b", needed_bytes=5 << 20)
    with pytest.raises(UserError, match=rf"^{tmp_path}/a cannot be .*No space left .*MiB are free\). Make room"), files:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a" / "file"))
    files = disk.explained(tmp_path / "b", needed_bytes=5 << 20)
    with pytest.raises(UserError, match=rf"^{tmp_path}/b cannot .*quota exceeded; .*free, 5.0 MiB are needed"), files:
        raise RuntimeError("writer failed") from OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(ZeroDivisionError), disk.explained(tmp_path):
        print(1 / 0)
    with pytest.raises(UserError, match="^said already$"), disk.explained(tmp_path):
        raise UserError("said already") from OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_named_in_one_line(root, tmp_path, monkeypatch, number):
    opened = pathlib.Path.open

    def refuse(path, mode="r", *arguments, **options):
        if "w" in mode:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    message = _message(monkeypatch, "convert-weights", root=root, out=tmp_path)
    assert message.startswith(f"Error: {tmp_path}/new.safetensors") and os.strerror(number) in message
    assert "Change its permissions, or choose another folder." in message


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), disk.replacing(path) as replacement:
        replacement.write_text("half")
        print(1 / 0)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with disk.replacing(path) as replacement:
        replacement.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


_WRITE = """
import pathlib, sys
from minmax_jax.base import disk
path, text = pathlib.Path(sys.argv[1]), sys.argv[2] * 100_000
for _ in range(100):
    with disk.replacing(path) as replacement:
        replacement.write_text(text)
"""


def test_two_processes_that_write_one_file_and_a_kill(tmp_path):
    """A reader finds what one of them wrote, all of it."""
    path = tmp_path / "file"
    path.write_text("c" * 100_000)
    started = [
        subprocess.Popen([sys.executable, "-c", _WRITE, str(path), letter], cwd=programs.ROOT, stderr=subprocess.PIPE)
        for letter in "ab"
    ]
    found = set()
    while any(process.poll() is None for process in started):
        text = path.read_text()
        assert len(text) == 100_000 and len(set(text)) == 1
        found.add(text[0])
        if found == {"a", "b", "c"}:
            started[0].kill()
    errors = [process.communicate()[1] for process in started]
    assert started[1].returncode == 0, errors[1]


def test_one_process_after_another_changes_a_folder(tmp_path):
    inside, waited = threading.Event(), []

    def second():
        with disk.in_turn(tmp_path):
            waited.append(inside.is_set())

    with disk.in_turn(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert not waited
        inside.set()
    thread.join()
    assert waited == [True]


def test_whether_a_folder_can_be_written_is_found_without_writing(tmp_path, monkeypatch):
    disk.check_writable(tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(disk.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match=rf"Permission denied: '{tmp_path}'"):
        disk.check_writable(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotADirectoryError, match=rf"Not a directory: '{tmp_path}/file'"):
        disk.check_writable(tmp_path / "file" / "run")
