"""Paths as users write them."""

import pathlib
import subprocess
import sys

from absl import flags
import jax
from minmax_jax.configs import synthetic
from minmax_jax.experiments import program
import pytest

import minmax_jax as mm
from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import load
from minmax_jax.data.importing import csv_files, glas, image_folder, mask_rules, oxford_flowers
from minmax_jax.runs import training
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.folder import workdir
from tests import own_layout, programs


def test_home_is_expanded_and_all_else_is_kept(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a b")
    assert local_path("source", "~/x") == pathlib.Path("/home/a b/x")
    assert local_path("source", "x/~/y: z") == pathlib.Path("x/~/y: z")
    assert local_path("source", "C:x") == pathlib.Path("C:x")
    with pytest.raises(OptionError, match="source='~nobody-has-this-name/x': .*home"):
        local_path("source", "~nobody-has-this-name/x")


def _config(**changes):
    config = synthetic.get_config()
    config.update_from_flattened_dict(changes)
    return config


RULE = mask_rules.parse(">0")
OPENERS = {
    "source": lambda path: image_folder.read_raw(path, mask_rule=RULE),
    "masks": lambda path: image_folder.read_raw(".", masks=path, mask_rule=RULE),
    "source of csv": lambda path: csv_files.read_raw(path, ".", mask_rule=RULE),
    "folds": lambda path: csv_files.read_raw(".", path, mask_rule=RULE),
    "source of glas": lambda path: glas.read_raw(path),
    "source of archives": lambda path: oxford_flowers.read_raw([path], pathlib.Path("scratch")),
    "dir": lambda path: load.load(path, "pets"),
    "--workdir": lambda path: workdir.open_workdir(path, synthetic.get_config()),
    "--workdir of a training": lambda path: training.train_and_evaluate(_config(**programs.TINY), path),
    "workdir": lambda path: mm.load(path),
    "config.model.pretrained": lambda path: creation.load_pretrained(
        options_lib.read(_config(**{"model.pretrained": path})).model, None
    ),
}


@pytest.mark.parametrize("name", OPENERS)
@pytest.mark.parametrize(
    "path, advice", [("gs://bucket/x", "gcsfuse"), ("s3://bucket/x", "aws s3"), ("https://host/x.zip", "curl")]
)
def test_addresses_are_refused_by_all_that_open_paths(tmp_path, monkeypatch, name, path, advice):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=f"{name.split(' of ')[0]}='{path}' is not on a file system .*{advice}"):
        OPENERS[name](path)
    assert not list(tmp_path.iterdir())


def test_the_data_program_in_another_folder_with_a_home(tmp_path):
    home, elsewhere = tmp_path / "home with spaces", tmp_path / "elsewhere"
    own_layout.write(home)
    elsewhere.mkdir()
    command = [sys.executable, "-m", "experiments.prepare_data", "--dataset=image_folder", "--name=pets"]
    command += ["--source=~/images", "--data_dir=~/data"]
    env = {"HOME": str(home), "PYTHONPATH": str(programs.ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (home / "data" / "pets").is_dir() and not list(elsewhere.iterdir())


def test_without_a_home_directory_compiled_programs_are_not_kept(monkeypatch, caplog):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    folder = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(pathlib.Path, "expanduser", no_home)
    flags.FLAGS.mark_as_parsed()
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        with caplog.at_level("INFO", logger="minmax_jax"):
            program.start()
        assert "Compiled programs are not kept: there is no home directory." in caplog.text
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)


_START = """
import sys
from absl import flags
import jax
from minmax_jax.experiments import program
flags.FLAGS(sys.argv[:1])
program.start()
print(jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache)
"""


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, "{home}/.cache/minmax_jax True"),
        ({"JAX_COMPILATION_CACHE_DIR": "/elsewhere/compiled"}, "/elsewhere/compiled True"),
        ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, "None False"),
    ],
)
def test_jax_s_environment_variables_say_where_compiled_programs_are_kept(tmp_path, environment, expected):
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"} | environment
    command = [sys.executable, "-c", _START]
    done = subprocess.run(command, cwd=programs.ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [expected.format(home=tmp_path)], done.stderr


def test_a_file_that_cannot_be_read_at_the_moment_is_named_in_one_line(tmp_path):
    (tmp_path / "config.json").mkdir()
    done = programs.run("evaluate", f"--workdir={tmp_path}")
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert error == f"Error: {tmp_path / 'config.json'}: Is a directory."
