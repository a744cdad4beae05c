"""Whole programs: training, continuing after SIGKILL, evaluating again, and what goes wrong."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minmax_jax.report import metric_records
from minmax_jax.runs import final_test, finished_runs, training
from minmax_jax.runs.folder import checkpoints
from tests import flowers_layout, programs


def _run(command, timeout=240):
    return subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """(workdir, results, traces) of a copy of the shared run."""
    folder, (found, traces) = tiny_run
    return shutil.copytree(folder, tmp_path_factory.mktemp("finished") / "run"), found, traces


def test_a_run_leaves_its_results_and_pictures(finished):
    folder, found, _ = finished
    assert json.loads((folder / "results.json").read_text()) == found
    assert json.loads((folder / "config.json").read_text())["train"]["epochs"] == 4
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert names == {"test_000000.png", "test_000011.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (folder / "pictures").iterdir())
    test = found["test"]
    assert test["num_images"] == 12 and 0 <= test["classification_error"] <= 100
    assert found["environment"]["num_devices"] == 4
    # Through the own mask the swap test reads what the evaluation reads.
    assert found["diagnosis"]["num_images"] == 12
    assert found["diagnosis"]["own"]["error"] == pytest.approx(test["classification_error"])
    assert found["diagnosis"]["own"]["entropy"] == pytest.approx(test["foreground_entropy"], rel=1e-4)


def test_the_record_has_every_step_and_validation(finished):
    records = metric_records.read(finished[0] / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 9))
    assert [r["step"] for r in records if r["kind"] == "validation"] == [2, 4, 6, 8]
    first = records[0]
    total = first["localizer_loss"] + first["foreground_loss"] + first["background_loss"]
    assert first["loss"] == pytest.approx(total, rel=1e-5)
    passes = [r["num_passes"] for r in records if r["kind"] == "train"]
    assert passes[:2] == [1, 1] and max(passes) <= 2


def test_the_selected_model_is_the_latest_of_the_best(finished):
    folder, found, _ = finished
    errors = {
        r["step"]: r["classification_error"]
        for r in metric_records.read(folder / "metrics.jsonl")
        if r["kind"] == "validation"
    }
    assert found["step"] == max(step for step, error in errors.items() if error == min(errors.values()))


# Each of the four devices has 2 of a batch's 8 images, and 1 of an evaluation's 4.
_TRACES = [("train", (2, 32, 32, 3)), ("predict", (1, 32, 32, 3))]


def test_each_function_is_traced_once(finished):
    """Over four epochs, of which the second starts to erase, four validations and checkpoints, test and pictures."""
    assert finished[2] == _TRACES


def test_a_continued_run_traces_each_function_once(finished, tmp_path):
    """The state, read from a checkpoint, is of the very type that a step returns: else the second step retraces."""
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    (copy / "results.json").unlink()
    shutil.rmtree(copy / "checkpoints" / "8")
    with programs.counting_traces() as traces:
        training.train_and_evaluate(programs.config(), copy)
    assert traces == _TRACES


def test_evaluating_again_gives_the_same_numbers(finished):
    folder, found, _ = finished
    again = finished_runs.evaluate_workdir(folder, "test")
    assert {name: again[name] for name in ("test", "step", "state_digest")} == {
        name: found[name] for name in ("test", "step", "state_digest")
    }
    assert finished_runs.evaluate_workdir(folder, "validation")["validation"]["num_images"] == 8


@pytest.mark.slow
def test_the_masks_of_a_finished_run_can_be_refined(finished):
    """The CRF changes the masks, not what was found in the image, and the results tell of it."""
    folder, found, _ = finished
    refined = finished_runs.evaluate_workdir(folder, "test", crf=True)
    assert refined["crf"] == json.loads((folder / "config.json").read_text())["evaluation"]["crf"]
    assert "crf" not in found and (folder / "predictions_test_crf.jsonl").exists()
    changed = {name for name, value in refined["test"].items() if value != found["test"][name]}
    assert {"f1_background"} <= changed <= {"f1_foreground", "f1_background"}


def test_the_masks_of_a_finished_run_can_be_averaged_over_flips(finished):
    """Those of training: both, on the built-in images."""
    folder, found, _ = finished
    averaged = finished_runs.evaluate_workdir(folder, "test", flips=True)
    assert averaged["flips"] and not found["flips"]
    assert averaged["test"]["f1_background"] != found["test"]["f1_background"]
    assert averaged["test"]["baselines"] == found["test"]["baselines"]


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    folder, found, _ = finished
    monkeypatch.setattr(final_test, "evaluate_split", None)
    assert training.train_and_evaluate(programs.config(), folder) == found


def test_another_seed_gives_another_model(finished, tmp_path):
    other = training.train_and_evaluate(programs.config(seed=1), tmp_path)
    assert other["state_digest"] != finished[1]["state_digest"]


def test_shard_map_trains_the_same_model(finished, tmp_path):
    """On four devices, to the bit."""
    results = training.train_and_evaluate(programs.config(train__engine="shard_map"), tmp_path)
    assert results["state_digest"] == finished[1]["state_digest"] and results["test"] == finished[1]["test"]


def test_an_extended_run_is_that_of_its_length(tmp_path, caplog):
    """With a learning rate that does not depend on the length; where and how it computes changes in between."""
    fixed = dict(learning_rate__schedule="step")
    whole = training.train_and_evaluate(programs.config(train__epochs=3, **fixed), tmp_path / "whole")
    training.train_and_evaluate(programs.config(train__epochs=2, **fixed), tmp_path / "run")
    changes = dict(data__num_workers=1, train__log_every=3)
    with caplog.at_level("INFO"):
        extended = training.train_and_evaluate(programs.config(train__epochs=3, **changes, **fixed), tmp_path / "run")
    assert extended["state_digest"] == whole["state_digest"] and extended["test"] == whole["test"]
    assert "from the checkpoint of step 4, on 4 x cpu" in caplog.text
    assert (tmp_path / "run" / "results_2_epochs.json").exists()


def _without_times(folder):
    records = metric_records.read(folder / "metrics.jsonl")
    return [{name: value for name, value in record.items() if name != "steps_per_second"} for record in records]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(finished, tmp_path):
    """SIGKILL at any moment, a checkpoint in each step, so that many kills fall into a save."""
    flags = ["--config.train.checkpoint_every=1", "--config.train.epochs=12"]
    reference = tmp_path / "reference"
    done = _run(programs.command(reference, *flags))
    assert done.returncode == 0, done.stderr
    moments = random.Random(0)
    killed = tmp_path / "killed"
    kills = 0
    while kills < 4:
        process = subprocess.Popen(
            programs.command(killed, *flags), cwd=programs.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = programs.last_step(killed)
        while process.poll() is None and programs.last_step(killed) < before + 3:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 3
    done = _run(programs.command(killed, *flags))
    assert done.returncode == 0, done.stderr
    results = [json.loads((folder / "results.json").read_text()) for folder in (reference, killed)]
    for name in ("test", "step", "state_digest"):
        assert results[0][name] == results[1][name]
    assert _without_times(reference) == _without_times(killed)


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning"
)  # See test_checkpoints.
def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(finished, tmp_path, caplog):
    folder, found, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "results.json").unlink()
    for path in (copy / "checkpoints" / "8").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    with caplog.at_level("WARNING"):
        again = training.train_and_evaluate(programs.config(), copy)
    assert "step 8" in caplog.text and "Falling back" in caplog.text
    assert again["state_digest"] == found["state_digest"] and again["test"] == found["test"]


@pytest.mark.slow
def test_divergence_names_terms_and_step_and_keeps_the_last_good_checkpoint(tmp_path):
    config = programs.config(learning_rate__peak=1e12, learning_rate__warmup_share=0.25, optimizer__name="sgd")
    config.train.checkpoint_every = 1
    with pytest.raises(training.DivergedError, match=r"diverged: .*step \d+") as error:
        training.train_and_evaluate(config, tmp_path)
    assert "learning_rate.peak" in str(error.value)
    assert not (tmp_path / "results.json").exists()
    saved = checkpoints.Checkpoints(tmp_path / "checkpoints", read_only=True).steps()
    broken = int(re.search(r"step (\d+)", str(error.value))[1])
    assert broken > 1 and saved[-1] == broken - 1


def test_another_configuration_is_refused(finished):
    with pytest.raises(ValueError, match=r"config.seed: 0 .*, 5 now"):
        training.train_and_evaluate(programs.config(seed=5), finished[0])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.batchsize=4"], "no field 'batchsize' Did you mean \"batch_size\""),
        (
            ["--config.optimizer.decayed=kernels"],
            "config.optimizer.decayed is gone: it is 'all' in every run. Leave",
        ),
        (["--config.train.epochs=many"], "--config.train.epochs=many: invalid literal"),
        (["--config.batch_size=6"], "config.batch_size=6 must be a multiple of the 4 devices; try 4 or 8."),
        (["--config.data.num_train=0"], "config.data.num_train=0 must be at least 1"),
        (["--config.data.crop_size=16"], "config.data.crop_size=16 must be from 32"),
        (["--config.data.dataset=glas"], "holds no prepared 'glas' dataset. Prepare it with"),
        (["--workdir=/proc/run"], "workdir='/proc/run' cannot be written"),
    ],
)
def test_bad_input_ends_with_one_clear_message(tmp_path, flags, message):
    done = programs.train(tmp_path / "run", *flags)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_bad_input_ends_a_process_as_well(tmp_path):
    done = _run(programs.command(tmp_path / "run", "--config.batch_size=6"))
    assert done.returncode == 1
    assert "config.batch_size=6 must be a multiple of the 4 devices; try 4 or 8." in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_example_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (programs.ROOT / "README.md").read_text(), flags=re.DOTALL)
    (example,) = [block for block in blocks if "train_step" in block]
    assert 0 < len([line for line in example.splitlines() if line.strip()]) <= 18
    done = _run([sys.executable, "-W", "error", "-c", example])
    assert done.returncode == 0, done.stderr


def test_the_predictor_of_the_readme_runs(finished, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (programs.ROOT / "README.md").read_text(), flags=re.DOTALL)
    (example,) = [block for block in blocks if "mm.load" in block]
    shutil.copytree(finished[0], tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert names["masks"].shape == (1, 64, 64) and names["masks"].dtype == bool
    assert len(names["classes"]) == 1 and set(names["classes"]) <= set(names["predictor"].class_names)


@pytest.mark.slow
def test_preparing_can_be_killed_at_any_moment_and_what_is_prepared_can_be_checked(tmp_path):
    flowers = flowers_layout.write(
        tmp_path / "flowers",
        np.arange(900) % 3 + 1,
        {"trnid": np.arange(1, 601), "valid": [601], "tstid": np.arange(602, 901)},
    )
    command = [sys.executable, "-m", "experiments.prepare_data", "--dataset=oxford_flowers", f"--data_dir={tmp_path}"]
    prepare = [*command, f"--source={flowers}"]
    folder = tmp_path / "oxford_flowers"
    for _ in range(2):
        process = subprocess.Popen(prepare, cwd=programs.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(folder.glob("incomplete.*")):
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = _run(prepare)
    assert done.returncode == 0 and "Train with --config=oxford " in done.stdout, done.stderr
    assert [path.name for path in folder.iterdir()] == ["2.0.0"]
    done = _run([*command, "--check"])
    assert done.returncode == 0 and re.search(r"train +600 +3 +600 +0 ", done.stdout), done.stderr
    (path,) = folder.rglob("*test*")
    path.write_bytes(path.read_bytes()[:-70000])
    done = _run([*command, "--check"])
    assert done.returncode == 1 and "2.0.0 is damaged" in done.stderr and "prepare it again" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset=glas"], "--source is missing"),
        (
            ["--dataset=glas", "--download"],
            "--download: glas cannot be downloaded by a program. Give --source, from https",
        ),
        (["--dataset=csv", "--name=x", "--source=a", "--source=b"], "--dataset=csv takes one"),
        (["--dataset=csv", "--name=Pets", "--source=a"], "--name='Pets' must be a name"),
        (["--dataset=cub", "--check"], "holds no prepared 'cub' dataset"),
    ],
)
def test_flags_of_prepare_data_that_do_not_fit(tmp_path, flags, message):
    done = programs.run("prepare-data", f"--data_dir={tmp_path}", *flags)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
