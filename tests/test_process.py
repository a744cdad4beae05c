"""Programs in a process that goes on, such as a notebook: one after another, in any thread, and nothing is left."""

import gc
import json
import logging
import signal
import subprocess
import sys
import threading
import warnings

from absl import flags
from absl import logging as absl_logging
from minmax_jax.experiments import cli, process
import numpy as np
from PIL import Image
import pytest

from minmax_jax import interop
from minmax_jax.report import page
from tests import programs, saved_models

pytestmark = pytest.mark.usefixtures("own_flags")


def _run(monkeypatch, command, *arguments):
    """The status of a program in this process: a number, or the text that it ends with."""
    monkeypatch.setattr(sys, "argv", ["minmax-jax", command, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def _state():
    loggers = [logging.getLogger(name) for name in ("", "minmax_jax")]
    return (
        [logger.handlers[:] for logger in loggers],
        [logger.level for logger in loggers],
        [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
        (sys.unraisablehook, warnings.filters[:], gc.get_threshold(), absl_logging.get_verbosity()),
        {name for name in flags.FLAGS if name in ("workdir", "input", "output", "config", "size", "crf")},
    )


def test_programs_follow_each_other(tmp_path, monkeypatch):
    """Their flags have the same names; a value of one is not that of the next; errors end the program alone."""
    interop.write_tensors(tmp_path / "in.safetensors", {"weight": np.arange(3.0, dtype=np.float32)})
    saved_models.write(tmp_path / "run")
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    before = _state()
    weights = (f"--input={tmp_path}/in.safetensors", f"--output={tmp_path}/out.safetensors")
    assert _run(monkeypatch, "convert-weights", *weights) is None
    exists = _run(monkeypatch, "convert-weights", *weights)
    assert exists.startswith(f"Error: --output='{tmp_path}/out.safetensors' exists already.")
    assert "Flag --output must have a value other than None" in _run(monkeypatch, "convert-weights", weights[0])
    output = f"--output={tmp_path}/out"
    assert _run(monkeypatch, "predict", f"--workdir={tmp_path}/run", output, f"{tmp_path}/image.png") is None
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["num_images"] == 1
    with pytest.raises(page.ReportError):
        _run(monkeypatch, "report", "--traceback", f"--workdir={tmp_path}/run")
    assert "(--traceback shows where it arose.)" in _run(monkeypatch, "report", f"--workdir={tmp_path}/run")
    assert _state() == before


@pytest.mark.parametrize(
    "command, argument, message",
    [
        ("predict", "--least_area=20", "Error: --least_area is now --min_area. Use the new name."),
        ("prepare-data", "-least_tissue", "Error: --least_tissue is now --min_tissue. Use the new name."),
        ("report", "--least_area=20", "Error: Unknown command line flag 'least_area'"),
    ],
)
def test_the_former_name_of_a_flag_answers_with_the_new_one(monkeypatch, command, argument, message):
    assert _run(monkeypatch, command, argument).startswith(message)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_an_unknown_group_and_a_faulty_configuration_are_told_apart(tmp_path, monkeypatch):
    flags = f"--workdir={tmp_path}/run", "--config.modle.trunk=resnet18"
    message = 'Error: --config has no field \'modle\' Did you mean "model" instead of "modle"?'
    assert _run(monkeypatch, "train", "--config=synthetic", *flags) == message
    same = "--config.learning_rate.warmup_epochs=0", "--config.evaluation.num_pictures=2"
    assert _run(monkeypatch, "train", "--config=synthetic", *flags, *same) == message
    found = _run(monkeypatch, "train", "--config=synthetic", flags[0], *same, "--config.train.epochs=0")
    assert found.startswith("Error: config.train.epochs=0 must be at least 1.")
    own = tmp_path / "own.py"
    own.write_text("def get_config():\n    return {}['trunk']\n")
    assert _run(monkeypatch, "train", f"--config={own}", flags[0]) == "Error: --config raises KeyError: trunk"


def test_what_follows_two_dashes_is_no_flag(monkeypatch):
    assert "--workdir must have a value" in _run(monkeypatch, "predict", "--output=out", "--", "--least_area")


def test_a_program_runs_in_another_thread(tmp_path, monkeypatch):
    """Where Python lets nobody handle signals."""
    interop.write_tensors(tmp_path / "in.safetensors", {"weight": np.zeros(2, np.float32)})
    statuses = []
    weights = (f"--input={tmp_path}/in.safetensors", f"--output={tmp_path}/out.safetensors")
    thread = threading.Thread(target=lambda: statuses.append(_run(monkeypatch, "convert-weights", *weights)))
    thread.start()
    thread.join()
    assert statuses == [None] and (tmp_path / "out.safetensors").exists()


class _Stream:
    """As that of a notebook: it has no encoding to change."""

    def write(self, text):
        return len(text)

    def flush(self):
        pass


def test_streams_of_a_notebook_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, "stdout", _Stream())
    process.show_all_characters()


_INTERRUPTED = """
import builtins, multiprocessing, time
from experiments import process

builtins.__IPYTHON__ = True
assert process.is_shared()
context = multiprocessing.get_context("fork")
other, reader = (context.Process(target=time.sleep, args=(60,)) for _ in range(2))
other.start()
others = frozenset(multiprocessing.active_children())
reader.start()
try:
    process.end(130, others=others)
except SystemExit as ended:
    reader.join(10)
    print(ended.code, other.is_alive(), reader.is_alive())
other.kill()
"""


def test_an_interrupted_program_leaves_the_notebook():
    """With its own readers ended, and other processes left."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], cwd=programs.ROOT, capture_output=True, text=True)
    assert done.stdout == "130 True False\n", done.stderr


def test_a_program_of_its_own_process_is_not_shared():
    code = "from experiments import process; print(process.is_shared())"
    done = subprocess.run([sys.executable, "-c", code], cwd=programs.ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


_NOTEBOOK = """
import runpy, sys, threading
def run(name, *arguments):
    "As %run -m NAME -- ARGUMENTS"
    sys.argv = [name, *arguments]
    try:
        runpy.run_module("experiments." + name, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        print("ended", ended.code, flush=True)
def cells():
    for folder in ("one", "two"):
        run("train", "--config=configs/synthetic.py", "--workdir=" + sys.path[-1] + "/" + folder, *OPTIONS)
    run("report", "--workdir=" + sys.path[-1] + "/one", sys.path[-1] + "/two")
    run("refine", "--workdir=" + sys.path[-1] + "/one", "--refine.num_steps=many")
thread = threading.Thread(target=cells)
thread.start()
thread.join()
"""


@pytest.mark.slow
def test_trainings_follow_each_other_in_a_thread(tmp_path):
    """As `%run` starts them: each module anew as __main__."""
    options = [f"--config.{name}={value}" for name, value in (programs.TINY | {"train.epochs": 1}).items()]
    code = _NOTEBOOK.replace("OPTIONS", repr(options)).replace("sys.path[-1]", repr(str(tmp_path)))
    done = subprocess.run([sys.executable, "-c", code], cwd=programs.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends = [line for line in done.stdout.splitlines() if line.startswith("ended")]
    assert ends[:3] == ["ended None"] * 3 and "--refine.num_steps=many" in ends[3], done.stdout + done.stderr
    results = [json.loads((tmp_path / folder / "results.json").read_text()) for folder in ("one", "two")]
    assert results[0]["state_digest"] == results[1]["state_digest"] and (tmp_path / "one" / "report.html").exists()
