"""What ends a training from outside: signals, a full disk, no memory, pictures that cannot be drawn."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

from minmax_jax.configs import synthetic
import numpy as np
import pytest

from minmax_jax import evaluation
from minmax_jax.base import disk, file_names, interrupts
from minmax_jax.method import Prediction
from minmax_jax.report import panels
from minmax_jax.runs.drawing import pictures
from minmax_jax.runs.folder import checkpoints, workdir
from tests import programs, splits


def _run_limited(limit, size, command, **changes):
    """Runs a program under a limit of the operating system."""
    limit = f"resource.setrlimit(resource.{limit}, ({size}, {size}))"
    start = f"import os, resource, sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])"
    env = os.environ | changes
    return subprocess.run(
        [sys.executable, "-c", start, *command], cwd=programs.ROOT, env=env, capture_output=True, text=True, timeout=240
    )


def _lines(text):
    """What is no line of the log."""
    return [line for line in text.splitlines() if line[2:3] != ":"]


@pytest.fixture
def interruptible():
    """A shell starts programs in the background with Ctrl-C ignored; programs inherit that from the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_says_how_to_resume_and_is_kept(interruptible, tmp_path, number, status):
    flags = ["--config.train.checkpoint_every=1", "--config.train.epochs=4000"]
    process = subprocess.Popen(
        programs.command(tmp_path, *flags), cwd=programs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and programs.last_step(tmp_path) < 5:
        time.sleep(0.05)
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
    steps = checkpoints.Checkpoints(tmp_path / "checkpoints", read_only=True).steps()
    assert process.returncode == status, err
    assert _lines(err) == [f"Stopped. Rerun the same command to resume from step {steps[-1]}."]
    assert steps[-1] >= 2 and not list((tmp_path / "checkpoints").glob("*tmp*"))


@pytest.mark.slow
def test_a_full_disk_ends_a_training_with_one_line(tmp_path, monkeypatch):
    """A limit on the size of files is the full disk that a test can have."""
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    done = _run_limited("RLIMIT_FSIZE", 8192, programs.command(tmp_path / "run"))
    error, *rest = _lines(done.stderr)
    assert done.returncode == 1
    assert (
        f"Error: {tmp_path / 'run' / 'checkpoints'} cannot be written (File too large; " in error
        and "MiB are free" in error
    )
    assert "rerun the same command to resume" in error
    assert rest == ["(--traceback shows where it arose.)"]


@pytest.mark.slow
def test_a_training_that_needs_too_much_memory_says_what_to_lower(tmp_path):
    flags = ["--config.batch_size=512", "--config.data.num_train=512", "--config.model.resnet.width=512"]
    done = _run_limited("RLIMIT_AS", 4 << 30, programs.command(tmp_path, *flags), XLA_FLAGS="")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Error: out of memory" in done.stderr
    for field in ("batch_size", "data.crop_size", "evaluation.batch_size", "train.accumulation", "model.remat"):
        assert f"config.{field}" in done.stderr


@pytest.mark.slow
def test_a_model_whose_last_update_diverged_is_neither_selected_nor_reported(tmp_path):
    """The step's loss is that of the parameters before it: finite."""
    flags = ["--config.learning_rate.peak=1e30", "--config.train.epochs=1", "--config.batch_size=16"]
    done = subprocess.run(programs.command(tmp_path, *flags), cwd=programs.ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Error: Training diverged: " in done.stderr
    assert not (tmp_path / "results.json").exists()
    assert checkpoints.Checkpoints(tmp_path / "checkpoints", read_only=True).steps() == []


def test_a_prediction_that_is_no_number_is_an_error():
    split = splits.make_split([(32, 32), (32, 48)])

    def predict(images):
        probabilities = np.full((len(images), 2), 0.5)
        probabilities[-1] = np.nan
        return Prediction(probabilities, np.zeros((*images.shape[:3], 1)), {})

    with pytest.raises(evaluation.NotFiniteError, match="probabilities for image 'image_0' are not finite"):
        list(evaluation.predict_split(predict, split, batch_size=1))


def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path, caplog):
    with pictures._warning("A picture", tmp_path / "a.png"):
        raise ValueError("no such font")
    assert "a.png (ValueError: no such font)" in caplog.text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["Ba$$in", "$x^2", "\\frac{", "紫の花", "زهرة", "a\nb\0c", "x" * 300, "\udce9t\udce9"])
def test_captions_hold_any_name(tmp_path, name):
    split = splits.make_split([(32, 32)])
    prediction = evaluation.ImagePrediction(0, np.array([0.3, 0.7]), np.zeros((32, 32)), {})
    named = split.__class__(**(vars(split) | {"names": (name,), "class_names": (name, name + "2")}))
    path = tmp_path / file_names.shorten(name.replace("\0", ""), ending=".png")
    panels.draw_panel(path, named, prediction, threshold=0.5)
    assert path.stat().st_size > 1000


def test_names_of_files_are_cut_where_file_systems_end():
    assert file_names.shorten("cat/0.jpg", ending=".png") == "cat/0.jpg.png"
    long = [file_names.shorten("花" * 85 + end, ending=".png") for end in "ab"]
    assert long[0] != long[1] and all(len(name.encode()) <= 255 for name in long)


def test_a_full_disk_is_recognised_in_what_libraries_raise(tmp_path):
    of_library = ValueError('OUT_OF_RANGE: Failed to write 16725 bytes to file 6: File too large [os_error_code="27"]')
    with_cause = RuntimeError("save failed")
    with_cause.__cause__ = OSError(28, "No space left on device")
    assert disk.is_full(of_library) and disk.is_full(with_cause)
    assert not disk.is_full(OSError(13, "Permission denied")) and not disk.is_full(ValueError("bad shape"))
    text = disk.explain(with_cause, tmp_path / "not" / "yet", needed_bytes=3 << 20)
    free = shutil.disk_usage(tmp_path).free / 2**20
    assert str(tmp_path / "not" / "yet") in text and "3.0 MiB are needed" in text
    assert abs(float(text.split("; ")[1].split(" MiB")[0]) - free) < 1000


def test_a_terminal_without_utf_8_shows_what_it_can(tmp_path):
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "experiments.evaluate", f"--workdir={tmp_path / '紫'}"]
    done = subprocess.run(command, cwd=programs.ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "\\u7d2b" in done.stderr and "Traceback" not in done.stderr


def test_a_read_that_fails_once_costs_no_checkpoint(tmp_path, monkeypatch):
    """As a network file system fails: the reader reports it as an error of the content, and it passes."""
    from tests import test_checkpoints

    saved = checkpoints.Checkpoints(tmp_path)
    test_checkpoints._save(saved, 1)
    test_checkpoints._save(saved, 2)
    read, failures = saved._manager.restore, []

    def fail_once(*arguments, **options):
        if not failures:
            failures.append(1)
            raise ValueError("UNKNOWN: Input/output error")
        return read(*arguments, **options)

    monkeypatch.setattr(saved._manager, "restore", fail_once)
    state, _ = saved.restore_newest(test_checkpoints._state(0))
    assert int(state.step) == 2 and failures


@pytest.mark.parametrize("program", ["evaluate", "refine"])
def test_a_run_of_another_version_says_which_file_to_change(tmp_path, program):
    """One that is older than a field is read with its default; a field that there is no more cannot be."""
    config = synthetic.get_config()
    del config.evaluation.crf.color_sigma
    with config.unlocked():
        config.evaluation.crf.max_offset = 9
    workdir.claim(tmp_path, config, {})
    done = programs.run(program, f"--workdir={tmp_path}")
    lines = done.stderr[done.stderr.index("Error: ") :].splitlines()
    assert done.returncode == 1 and f"{tmp_path / 'config.json'} is of another version" in lines[0]
    assert lines[1].startswith("config.evaluation.crf.max_offset is not a field; did you mean ")
    assert len(lines) == 3 and "traceback" in lines[2]


def test_processes_that_read_images_end_with_the_training():
    code = """
import multiprocessing, time
from experiments import process

if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    print(child.pid, flush=True)
    process.end(3, others=frozenset())
"""
    options = dict(cwd=programs.ROOT, capture_output=True, text=True, timeout=30)  # the child holds the pipe
    done = subprocess.run([sys.executable, "-c", code], **options)
    assert done.returncode == 3 and done.stdout.strip().isdigit(), done.stderr


def test_an_interrupt_that_a_library_swallows_is_delivered_again(interruptible):
    with pytest.raises(KeyboardInterrupt), interrupts.remembered() as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):  # what callbacks do
            signal.raise_signal(signal.SIGINT)
        check()
        raise AssertionError("not delivered")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_during_a_save_waits_for_its_end(interruptible):
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done
