"""What `train --dry_run` says, that it leaves no trace, and that it refuses what a training refuses."""

import json
import re
import shutil
import time

import jax
import numpy as np
import pytest

from minmax_jax.base import lock
from minmax_jax.distributed import devices
from minmax_jax.runs import dry_run, estimate, measured_parts, measured_work
from minmax_jax.runs.measured_work import Duration
from tests import programs


def _content(folder):
    """Each file and folder below a folder, with its time of modification."""
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def _seconds(text):
    """The parts by name, in seconds, of lines such as "   1:30  100 steps (0.9 s each)"."""
    found = re.findall(r"^ +(\d+):(\d\d)  (.*) \(.*\)$", text, flags=re.MULTILINE)
    return {name: 60 * int(minutes) + int(seconds) for minutes, seconds, name in found}


@pytest.fixture
def fixed(monkeypatch):
    """Work is done once and takes 2 s, the first time 10 s more, of which compiling takes 4; the machine is idle."""
    monkeypatch.setattr(estimate.os, "getloadavg", lambda: (0.0, 0.0, 0.0))

    def measure(work, *, repetitions):
        del repetitions
        work()
        return Duration(each=2.0, first=10.0, kept=4.0)

    monkeypatch.setattr(measured_parts, "measure", measure)


def test_a_fresh_run(tmp_path, fixed):
    with programs.counting_traces() as traces:
        text = dry_run.describe(programs.config(), tmp_path / "run")
    assert traces == [("train", (2, 32, 32, 3)), ("predict", (1, 32, 32, 3))]  # of the run itself
    assert not list(tmp_path.iterdir())
    lines = text.splitlines()
    assert lines[:4] == [
        f"Dry run: nothing is written to {tmp_path}/run.",
        "Images: 16 training, 8 validation, 12 test, of 4 classes, 32x32 pixels.",
        "Shapes: 1 padded size: 32x32; training crops of 32x32.",
        "Steps: 8, 2 per epoch, with 8 images each; 8 remain, from random weights.",
    ]
    # 2 s are a step, or four batches of four images.
    parts = _seconds(text)
    start = parts.pop("start")
    assert parts == {
        "8 steps": 16,
        "4 x validation of 8 images": 4 * 2 * 0.5,
        "test of 12 images": round(3 * 0.5),
        "swap test of 12 images": 0,  # what the test takes longer with it
        "threshold from 8 validation images": 2 * 0.5,
        "tracing and compiling": 5 * (10 - 4),
    }
    total = start + 16 + 4 + 1.5 + 1 + 30
    if total < 59:
        found = re.search(r"^Expected: about (\d+) seconds, without .*intervals, pictures and", text, re.MULTILINE)
        assert abs(int(found[1]) - total) <= 2
    assert "Compiling took this dry run 20 s, and is not repeated" in text
    assert re.search(r"^Memory: \d+.* at most so far\.$", text, re.MULTILINE)


def test_a_resumed_run(tiny_run, tmp_path, fixed):
    folder = shutil.copytree(tiny_run[0], tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "8")
    (folder / "results.json").unlink()
    before = _content(folder)
    text = dry_run.describe(programs.config(), folder)
    assert _content(folder) == before
    assert "Steps: 8, 2 per epoch, with 8 images each; 2 remain, from the checkpoint of step 6." in text
    parts = _seconds(text)
    assert parts["2 steps"] == 4 and parts["1 x validation of 8 images"] == 1


def test_a_finished_run(tiny_run):
    text = dry_run.describe(programs.config(), tiny_run[0])
    assert text.endswith("Expected: nothing to do, this run is finished.")
    assert "8 images each; 0 remain" in text


def test_a_run_without_its_test(tiny_run, tmp_path, fixed):
    folder = shutil.copytree(tiny_run[0], tmp_path / "run")
    (folder / "results.json").unlink()
    parts = _seconds(dry_run.describe(programs.config(), folder))
    assert set(parts) == {
        *("start", "test of 12 images", "swap test of 12 images", "threshold from 8 validation images"),
        "tracing and compiling",
    }


def test_it_is_measured(tmp_path):
    """Without fixed durations: all parts together take longer than nothing, and less than a training that is slow."""
    started = time.monotonic()
    text = dry_run.describe(programs.config(), tmp_path / "run")
    taken = time.monotonic() - started
    assert 0 < sum(_seconds(text).values()) < 60 + 20 * taken


@pytest.mark.parametrize(("cache_gib", "expected"), [(1.0, 36 * 3 * 32 * 32), (2.0**-16, 3 * 2**14), (0.0, 0)])
def test_images_that_are_kept_in_memory(tmp_path, cache_gib, expected):
    """Of 16, 8 and 12 images of 3 KiB, those that fit, of each split."""
    run, _ = dry_run.training.prepare(programs.config(data__cache_gib=cache_gib), tmp_path)
    assert dry_run._planned_caches(run) == {"images in memory": expected}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.learning_rate.peak=-1"], "config.learning_rate.peak=-1"),
        (["--config.data.dataset=glas", "--config.data.dir=none"], "holds no prepared 'glas' dataset"),
        (["--config.model.pretrained=none.npz"], "config.model.pretrained='none.npz'"),
        (["--config.seed=3", "--config.train.epochs=5"], "config.seed: 0 in the workdir, 3 now"),
    ],
)
def test_errors_are_those_of_the_training(tiny_run, tmp_path, flags, message):
    folder = tiny_run[0] if "in the workdir" in message else tmp_path / "run"
    errors = []
    for further in ([], ["--dry_run"]):
        done = programs.train(folder, *flags, *further)
        assert done.returncode == 1
        errors.append(done.stderr[done.stderr.index("Error: ") :])
    assert errors[0] == errors[1] and message in errors[0]


def test_a_folder_in_use_or_in_the_way_is_refused(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run[0], tmp_path / "run")
    with lock.hold(folder):
        done = programs.train(folder, "--dry_run")
    assert done.returncode == 1 and "is in use: process" in done.stderr
    data = json.loads((folder / "data.json").read_text())
    data["test"]["digest"] = "another"
    (folder / "data.json").write_text(json.dumps(data))
    done = programs.train(folder, "--dry_run")
    assert done.returncode == 1 and "belongs to a run on other data: The test split has 12 images" in done.stderr
    (tmp_path / "file").write_text("in the way")
    done = programs.train(tmp_path / "file" / "run", "--dry_run")
    assert done.returncode == 1 and "cannot be written" in done.stderr


def test_from_the_command_line(tiny_run):
    done = programs.train(tiny_run[0], "--dry_run")
    assert done.returncode == 0 and done.stdout.endswith("this run is finished.\n")


def test_steps_are_spread_over_those_that_remain(tmp_path, monkeypatch):
    """Erasing that starts late is measured as often as it happens."""
    run = dry_run.training.prepare(programs.config(train__epochs=8), tmp_path / "run")[0]
    steps, train_step = [], run.train_step

    def counting(state, batch):
        steps.append(int(state.step))
        return train_step(state, batch)

    object.__setattr__(run, "train_step", counting)
    state, part, _ = measured_parts.measure_steps(run, run.state, range(4, 16))
    assert steps == [4, 4 + 2, 4 + 6, 4 + 10] and int(state.step) == 15
    assert part.name == "12 steps"


def test_validations_are_counted_as_they_happen():
    for first, total, every in np.ndindex(6, 14, 5):
        steps = range(first + 1, total + 1)
        happening = [step for step in steps if step % (every + 1) == 0 or step == total]
        if steps:
            assert measured_parts.count_validations(first, total, every + 1) == len(happening)


# Durations.


def test_the_first_repetition_is_not_counted(monkeypatch):
    """Of its 8 s more than another, 5 were compiling, of which 1 is read again."""
    times, calls = iter([0.0, 10.0, 11.0, 14.0]), []
    monkeypatch.setattr(measured_work.time, "perf_counter", lambda: next(times))

    def work():
        calls.append(1)
        if len(calls) == 1:
            jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 5.0)
            jax.monitoring.record_event_duration_secs("/jax/compilation_cache/cache_retrieval_time_sec", 1.0)

    assert measured_work.measure(work, repetitions=2) == Duration(each=2.0, first=8.0, kept=4.0)
    assert len(calls) == 3


def test_compiled_programs_without_a_cache_are_compiled_again(no_compilation_cache):
    with measured_work.counting_kept() as kept:
        jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 5.0)
    assert kept() == 0


def test_shapes_that_were_not_measured_are_compiled():
    """Two shapes: the first is traced again, the second also compiled; a work of one shape was in the cache."""
    part, kept = estimate.compiling([(Duration(1.0, 10.0, 4.0), 2), (Duration(1.0, 3.0, 0.0), 1)])
    assert part.seconds == (10 - 4) + 10 + 3 and kept == 4
    assert "1 programs of further shapes" in part.basis


def test_batches_are_counted_by_area_and_canvas():
    """Of canvases of 64x64 and 64x96 pixels: three images take two batches, and two one of 1.5 times the area."""
    sizes = np.array([[64, 64], [40, 64], [64, 96], [64, 70], [33, 64]])
    load = estimate.find_load(sizes, np.array([[64, 64], [64, 96]]), batch_size=2)
    assert load.num_batches == 2 + 1.5 and load.num_shapes == 2 and load.typical.tolist() == [0, 1, 4]


def test_what_is_said_of_many_shapes():
    sizes = np.stack([32 * np.arange(1, 9), np.full(8, 32)], axis=1)
    text = estimate.describe_shapes(sizes, None)
    assert text == "8 padded sizes: 32x32, 64x32, 96x32, 128x32, 160x32, 192x32 and 2 more"
    assert estimate.describe_shapes(sizes, np.array([[256, 32]])) == "1 canvas for 8 padded sizes: 256x32"
    assert estimate.describe_range(sizes[::-1]) == "32x32 to 256x32 pixels"


def test_minutes_are_rounded():
    parts = [estimate.Part("steps", 0.0, "")]
    for seconds, expected in (0.2, "1 seconds"), (150, "2.5 minutes"), (3600, "60 minutes"):
        text = estimate.describe_parts([parts[0]._replace(seconds=seconds)], kept=0.5, left_out="pictures")
        assert text.startswith(f"Expected: about {expected}, without pictures.") and "Compiling" not in text


def test_other_programs_are_mentioned(monkeypatch):
    monkeypatch.setattr(estimate.os, "cpu_count", lambda: 4)
    for load, expected in (2.0, []), (2.25, ["load 2.2 on 4 cores"]):
        monkeypatch.setattr(estimate.os, "getloadavg", lambda load=load: (load, 9.0, 9.0))
        found = estimate.describe_others()
        assert len(found) == len(expected) and all(text in line for text, line in zip(expected, found))


def test_memory_of_devices(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    found = [Device(None), Device({"peak_bytes_in_use": 3 << 30, "bytes_limit": 8 << 30}), Device({})]
    monkeypatch.setattr(devices.jax, "local_devices", lambda: found)
    text = estimate.describe_memory({"images": 1 << 20, "features": 0})
    assert text.endswith("at most so far, 3.0 GiB of a device's 8.0 GiB, up to 1 MiB more for images")
