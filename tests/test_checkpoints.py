"""Saving, restoring, keeping the newest and the best, and passing over damage."""

import errno
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.distributed import devices
from minmax_jax.runs import finished_runs
from minmax_jax.runs.folder import checkpoints, digests
from minmax_jax.training import state as state_lib

# After the first array of a damaged checkpoint, orbax stops to listen to its readers; they complain into the void.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")


def _state(step, value=1.0):
    state = state_lib.TrainState(
        step=jnp.int32(step),
        params={"kernel": jnp.full((3, 2), value)},
        batch_stats={"whole": {"mean": jnp.full(2, -value)}},
        opt_state=({"trace": jnp.full((3, 2), 2 * value)},),
        rng=jax.random.key(7),
    )
    return devices.replicate(state)


def _save(saved, step, *, selected_step=0):
    run = checkpoints.RunRecord([{"step": step}], selected_step, 0.5, 2.0)
    saved.save(_state(step, float(step)), run)
    saved.wait()


def _assert_equal(state, other):
    raw = [s.replace(rng=jax.random.key_data(s.rng)) for s in (state, other)]
    chex.assert_trees_all_equal(*jax.tree.map(np.asarray, raw))
    chex.assert_trees_all_equal_dtypes(*raw)


def test_everything_comes_back(tmp_path):
    _save(checkpoints.Checkpoints(tmp_path), 3, selected_step=3)
    state, run = checkpoints.Checkpoints(tmp_path).restore_newest(_state(0))
    _assert_equal(state, _state(3, 3.0))
    assert run == checkpoints.RunRecord([{"step": 3}], 3, 0.5, 2.0)


def test_a_score_that_is_not_there_yet_and_numbers_that_are_none_come_back(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(_state(2, 2.0), checkpoints.RunRecord([{"step": 2, "f1_foreground": float("nan")}]))
    saved.wait()
    (content,) = tmp_path.glob("2/progress/metadata")
    json.loads(content.read_text(), parse_constant=pytest.fail)
    _, run = checkpoints.Checkpoints(tmp_path).restore_newest(_state(0))
    # An earlier version selected none where no score was a number: now the latest is.
    assert run == checkpoints.RunRecord([{"step": 2, "f1_foreground": None}], 2, float("inf"), 0.0)


def test_nothing_saved_is_nothing_restored(tmp_path):
    assert checkpoints.Checkpoints(tmp_path).restore_newest(_state(0)) is None


def test_the_two_newest_and_the_selected_are_kept(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path)
    for step, selected_step in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        _save(saved, step, selected_step=selected_step)
    assert saved.steps() == [2, 4, 5]
    for step in (6, 7, 8):
        _save(saved, step, selected_step=6)
    assert saved.steps() == [6, 7, 8]


def _files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def _flip_bits(folder):
    """In the arrays themselves."""
    for path in _files(folder):
        if path.parent.name == "d":
            content = bytearray(path.read_bytes())
            content[len(content) // 3] ^= 0xFF
            path.write_bytes(content)


def _empty(folder):
    for path in _files(folder):
        path.write_bytes(b"")


def _remove_state(folder):
    for path in _files(folder):
        if "state" in path.parts:
            path.unlink()


def _change_digest(folder):
    (path,) = [path for path in _files(folder) if "digest" in path.read_text(errors="ignore")]
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))


@pytest.mark.parametrize("damage", [_flip_bits, _empty, _remove_state, _change_digest])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    saved = checkpoints.Checkpoints(tmp_path)
    _save(saved, 1)
    _save(saved, 2)
    damage(tmp_path / "2")
    saved = checkpoints.Checkpoints(tmp_path)
    state, _ = saved.restore_newest(_state(0))
    _assert_equal(state, _state(1, 1.0))
    assert "step 2" in caplog.text and "Falling back to the one before" in caplog.text
    saved.set_aside_after(1)
    assert saved.steps() == [1]
    assert str(tmp_path.parent / checkpoints.DAMAGED / "2") in caplog.text
    _save(saved, 2)
    assert saved.steps() == [1, 2]


def test_a_damaged_checkpoint_is_kept_beside_an_earlier_one_of_the_same_step(tmp_path):
    folder = tmp_path / "checkpoints"
    for expected in (["2"], ["2", "2-2"]):
        saved = checkpoints.Checkpoints(folder)
        for step in {1, 2} - set(saved.steps()):
            _save(saved, step)
        _flip_bits(folder / "2")
        content = sorted(path.read_bytes() for path in _files(folder / "2"))
        saved = checkpoints.Checkpoints(folder)
        saved.restore_newest(_state(0))
        saved.set_aside_after(1)
        kept = sorted((tmp_path / checkpoints.DAMAGED).iterdir())
        assert [path.name for path in kept] == expected
        assert sorted(path.read_bytes() for path in _files(kept[-1])) == content


def _fail_to_read(monkeypatch, error):
    def fail(*arguments, **options):
        raise ValueError("orbax met an error") from error

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "restore", fail)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
    ],
)
def test_a_passing_read_error_is_no_damage_and_loses_nothing(tmp_path, monkeypatch, error):
    saved = checkpoints.Checkpoints(tmp_path / "checkpoints")
    _save(saved, 1)
    _save(saved, 2)
    with monkeypatch.context() as patch:
        _fail_to_read(patch, error)
        with pytest.raises(checkpoints.CheckpointError, match="step 2 .*cannot be read at the moment.*Rerun"):
            saved.restore_newest(_state(0))
    state, _ = checkpoints.Checkpoints(tmp_path / "checkpoints").restore_newest(_state(0))
    _assert_equal(state, _state(2, 2.0))


def test_a_file_that_the_file_system_does_not_give_is_no_damage(tmp_path, monkeypatch):
    """Whatever orbax makes of it: the files themselves are tried."""
    saved = checkpoints.Checkpoints(tmp_path / "checkpoints")
    _save(saved, 1)
    open_path = pathlib.Path.open

    def refuse(path, *arguments, **options):
        if "1" in path.parts and arguments == ("rb",):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return open_path(path, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    _fail_to_read(monkeypatch, None)
    with pytest.raises(checkpoints.CheckpointError, match="at the moment .*Input/output error"):
        saved.restore_newest(_state(0))


def _listing(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_reading_changes_nothing_in_the_folder(tmp_path):
    """Also where a training is saving: its temporary files stay."""
    folder = tmp_path / "checkpoints"
    saved = checkpoints.Checkpoints(folder)
    _save(saved, 1)
    half = folder / "2.orbax-checkpoint-tmp" / "state"
    half.mkdir(parents=True)
    (half / "data").write_bytes(b"half")
    before = _listing(folder)
    reader = checkpoints.Checkpoints(folder, read_only=True)
    assert reader.steps() == [1]
    _assert_equal(reader.restore_newest(_state(0))[0], _state(1, 1.0))
    assert _listing(folder) == before
    assert checkpoints.Checkpoints(tmp_path / "none", read_only=True).steps() == []
    assert not (tmp_path / "none").exists()


def test_if_all_are_damaged_it_says_so(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path)
    _save(saved, 1)
    _flip_bits(tmp_path / "1")
    with pytest.raises(checkpoints.CheckpointError, match="All checkpoints in .* are damaged"):
        checkpoints.Checkpoints(tmp_path).restore_newest(_state(0))


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match="step 9 in .* cannot be read"):
        checkpoints.Checkpoints(tmp_path).restore(9, _state(0))


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path)
    _save(saved, 1)
    half = tmp_path / "2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "data").write_bytes(b"half")
    assert checkpoints.Checkpoints(tmp_path).steps() == [1]


def test_digest_tells_values_names_and_types_apart():
    tree = {"a": np.float32([1, 2]), "b": np.float32([3])}
    values = {
        digests.digest(tree),
        digests.digest(tree | {"b": np.float32([3.0000002])}),
        digests.digest({"a": tree["a"], "c": tree["b"]}),
        digests.digest(tree | {"b": np.float64([3])}),
        digests.digest(tree | {"a": np.float32([[1, 2]])}),
    }
    assert len(values) == 5
    assert digests.digest(dict(reversed(tree.items()))) == digests.digest(tree)


def test_evaluation_beside_a_training_looks_up_what_was_replaced(tmp_path, monkeypatch):
    """The training deletes checkpoints that are being read."""
    saved = checkpoints.Checkpoints(tmp_path / "checkpoints")
    _save(saved, 1, selected_step=1)
    restore, calls = checkpoints.Checkpoints.restore, []

    def restore_late(self, step, state):
        calls.append(step)
        if len(calls) == 2:  # the record was read, the selected model not yet
            for later in (2, 3, 4):
                _save(saved, later, selected_step=later)
        return restore(self, step, state)

    monkeypatch.setattr(checkpoints.Checkpoints, "restore", restore_late)
    state, seconds = finished_runs._restore_selected(tmp_path, _state(0))
    assert int(state.step) == 4 and seconds == 2.0 and calls == [1, 1, 4, 4]
    # Damage that no other process explains is an error.
    (tmp_path / "checkpoints" / "3").rename(tmp_path / "3")
    (tmp_path / "checkpoints" / "4" / "state").rename(tmp_path / "state")
    with pytest.raises(checkpoints.CheckpointError, match="damaged"):
        finished_runs._restore_selected(tmp_path, _state(0))
