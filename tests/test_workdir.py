"""The folder of a run."""

import json
import pathlib

from minmax_jax.configs import synthetic
import pytest

from minmax_jax.runs import workdir


def test_the_configuration_is_written_and_read_back(tmp_path):
    config = synthetic.get_config()
    folder = workdir.open_workdir(tmp_path / "a" / "run", config)
    assert workdir.open_workdir(folder, config) == folder
    again = workdir.read_config(folder)
    assert again.data.num_train == 512 and list(again.model.resnet.stage_sizes) == [1, 1]
    assert workdir.open_workdir(folder, again) == folder


def test_another_configuration_is_refused_by_the_fields_that_differ(tmp_path):
    config = synthetic.get_config()
    workdir.open_workdir(tmp_path, config)
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
