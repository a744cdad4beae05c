"""The programs refine and evaluate as commands: flags that cannot be used, and what is printed."""

import json
import subprocess
import sys

import pytest

from minmax_jax.runs.folder import workdir
from tests import programs


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--refine.edge_weight=-1", "config.refine.edge_weight=-1.0 must be at least 0."),
        ("--refine.scales=(0.01,)", "config.refine.scales=(0.01,) must be numbers from 0.1 to 8"),
        ("--refine.nobody=1", "--refine has no field 'nobody'"),
        ("--refine.width=8", "config.refine.width is gone: it is 32 in every run. Leave it out."),
        ("--refine.num_steps=many", "--refine.num_steps=many: invalid literal"),
        ("--refine.num_steps=5", "holds no validated model yet."),
    ],
)
def test_what_refine_cannot_use_is_one_line_and_changes_nothing(tmp_path, flag, message):
    workdir.claim(tmp_path, programs.config(), {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = programs.run("refine", f"--workdir={tmp_path}", flag)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert message in error
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_bad_option_of_the_second_stage_ends_a_training_before_it_starts(tmp_path):
    done = programs.train(tmp_path / "run", "--config.refine.calibration=platt")
    assert done.returncode == 1 and "Error: config.refine.calibration='platt' must be one of" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_the_console_command_explains_refine():
    command = [sys.executable, "-m", "minmax_jax.experiments.cli", "refine", "--help"]
    done = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "experiments.refine --workdir" in done.stdout and "--workdir" in done.stdout


@pytest.mark.slow
def test_refine_and_evaluate_from_the_command_line(tmp_path):
    done = programs.train(tmp_path, "--config.train.epochs=1")
    assert done.returncode == 0, done.stderr
    before = json.loads((tmp_path / "results.json").read_text())["test"]
    done = programs.run("refine", f"--workdir={tmp_path}", "--refine.num_steps=5", "--refine.scales=(1.0,)")
    assert done.returncode == 0 and "masks refined by the second stage" in done.stdout, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["test_unrefined"] == before and found["refine"]["num_steps"] == 5
    done = programs.run("evaluate", f"--workdir={tmp_path}", "--norefine")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test"] == before
