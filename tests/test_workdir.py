"""The folder of a run."""

import dataclasses
import json
import pathlib

from minmax_jax.configs import synthetic
import pytest

from minmax_jax.base.errors import ConfigError
from minmax_jax.data import dataset
from minmax_jax.runs.building import deleted_fields, fields
from minmax_jax.runs.folder import workdir
from tests import splits


def test_the_configuration_is_written_and_read_back(tmp_path):
    config = synthetic.get_config()
    folder = workdir.open_workdir(tmp_path / "a" / "run", config)
    workdir.claim(folder, config, {})
    assert workdir.open_workdir(folder, config) == folder
    again = workdir.read_config(folder)
    assert again.data.num_train == 512 and list(again.model.resnet.stage_sizes) == [1, 1]
    assert workdir.open_workdir(folder, again) == folder


def test_another_configuration_is_refused_by_the_fields_that_differ(tmp_path):
    config = synthetic.get_config()
    workdir.claim(workdir.open_workdir(tmp_path, config), config, {})
    config.batch_size = 4
    config.model.resnet.stage_strides = (2, 1)
    with pytest.raises(workdir.WorkdirError) as error:
        workdir.open_workdir(tmp_path, config)
    lines = str(error.value).splitlines()
    assert lines[1:3] == [
        "  config.batch_size: 16 in the workdir, 4 now",
        "  config.model.resnet.stage_strides: [1, 1] in the workdir, [2, 1] now",
    ]
    assert len(lines) == 4


@pytest.mark.parametrize(
    "name, value",
    [
        ("data.cache_gib", 0.0),
        ("data.microns_per_pixel", 0.5),
        ("data.dir", "/elsewhere"),
        ("data.folds", "/elsewhere/folds"),
        ("data.num_workers", 3),
        ("evaluation.batch_size", 1),
        ("train.checkpoint_every", 7),
        ("train.log_every", 1),
        ("train.tensorboard", True),
    ],
)
def test_where_and_how_a_run_computes_may_change(tmp_path, name, value):
    config = synthetic.get_config()
    workdir.claim(workdir.open_workdir(tmp_path, config), config, {})
    config.update_from_flattened_dict({name: value})
    workdir.claim(workdir.open_workdir(tmp_path, config), config, {})
    assert fields.flatten(workdir.read_config(tmp_path))[name] == value


def test_other_data_are_refused_and_the_same_elsewhere_are_not(tmp_path):
    config = synthetic.get_config()
    parts = {"train": splits.make_split([(32, 32)] * 6), "test": splits.make_split([(32, 40)] * 4)}
    workdir.claim(tmp_path, config, parts)
    workdir.claim(tmp_path, config, parts)
    with pytest.raises(workdir.WorkdirError, match="The test split has 3 images, and had 4") as error:
        workdir.claim(tmp_path, config, parts | {"test": dataset.subset(parts["test"], [0, 1, 2])})
    assert "train split" not in str(error.value)
    renamed = dataclasses.replace(parts["train"], names=("other", *parts["train"].names[1:]))
    assert len(workdir.differing_splits(tmp_path, parts | {"train": renamed})) == 1


@pytest.mark.parametrize("schedule, words", [("step", "does not depend"), ("cosine", "not the same as a run")])
def test_more_epochs_extend_a_run_and_fewer_do_not(tmp_path, caplog, schedule, words):
    config = synthetic.get_config()
    config.learning_rate.schedule, config.train.epochs = schedule, 5
    workdir.claim(tmp_path, config, {})
    (tmp_path / "results.json").write_text("{}")
    config.train.epochs = 8
    with caplog.at_level("INFO"):
        workdir.claim(workdir.open_workdir(tmp_path, config), config, {})
    assert "is 8 now, and was 5" in caplog.text and words in caplog.text
    assert [path.name for path in tmp_path.glob("results*")] == ["results_5_epochs.json"]
    assert workdir.read_config(tmp_path).train.epochs == 8
    config.train.epochs = 7
    with pytest.raises(workdir.WorkdirError, match="config.train.epochs: 8 in the workdir, 7 now"):
        workdir.open_workdir(tmp_path, config)


def test_fields_that_are_newer_than_a_run_have_their_defaults(tmp_path):
    config = synthetic.get_config()
    workdir.claim(tmp_path, config, {})
    written = json.loads((tmp_path / "config.json").read_text())
    del written["method"], written["evaluation"]["scales"], written["data"]["synthetic"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    again = workdir.read_config(tmp_path)
    assert (
        again.method == "minmax" and tuple(again.evaluation.scales) == (1.0,) and again.data.synthetic.image_size == 64
    )
    assert again.batch_size == 16  # not the default
    workdir.open_workdir(tmp_path, config)


def _write_older(folder, **fields):
    """config.json of a version that had these fields."""
    config = synthetic.get_config()
    config.update_from_flattened_dict(fields)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))


def test_fields_that_are_gone_are_dropped_at_the_value_that_is_left(tmp_path):
    values = {name: value for name, value in deleted_fields.FIELDS.items() if type(value) is not object}
    free = {
        "compilation_cache": "off",
        "evaluation.num_pictures": 3,
        "evaluation.selection_window": 2,
        "refine.feature_bandwidth": 0.5,
    }
    assert values.keys() | free.keys() == deleted_fields.FIELDS.keys()
    _write_older(tmp_path, **values, **free)
    assert fields.flatten(workdir.read_config(tmp_path)) == fields.flatten(synthetic.get_config())
    workdir.open_workdir(tmp_path, synthetic.get_config())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate.warmup_epochs", "0", True),
        ("learning_rate.warmup_epochs", "1", False),
        ("learning_rate.milestones", "()", True),
        ("optimizer.decayed", "all", True),
        ("optimizer.decayed", "kernels", False),
        ("evaluation.num_pictures", "2", True),
        ("compilation_cache", "off", False),  # there is something else to do
        ("train.epochs", "2", False),
    ],
)
def test_a_flag_of_a_field_that_is_gone_may_say_what_every_run_does(name, value, expected):
    assert deleted_fields.changes_nothing(name, value) is expected


def test_a_run_with_another_value_of_a_field_that_is_gone_is_refused(tmp_path):
    _write_older(tmp_path, **{"learning_rate.milestones": (5,), "loss.barrier_t": 5})
    message = rf"{tmp_path / 'config.json'}: learning_rate.milestones=\[5\] is deleted .*Remove the field"
    with pytest.raises(ConfigError, match=message):
        workdir.read_config(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(workdir.WorkdirError, match="cannot be written"):
        workdir.open_workdir(tmp_path / "file" / "run", synthetic.get_config())
    with pytest.raises(workdir.WorkdirError, match="cannot be written"):
        workdir.open_workdir("/proc/run", synthetic.get_config())


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(workdir.WorkdirError, match="is not a workdir"):
        workdir.read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"seed"')
    with pytest.raises(workdir.WorkdirError, match="is not a workdir"):
        workdir.read_config(tmp_path)


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    workdir.write_json(path, {"a": 1})

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        workdir.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
