"""The installed package: everything is in it, and nothing beside it."""

import ast
import configparser
import importlib.metadata
import pathlib
import subprocess
import sys
import zipfile

from minmax_jax.experiments import cli, config_files
import pytest

from minmax_jax.base.errors import UserError
from tests import programs


def _options():
    parser = configparser.ConfigParser()
    parser.read(programs.ROOT / "setup.cfg")
    return parser


def test_extras_of_accelerators_are_those_of_jax():
    extras = _options()["options.extras_require"]
    offered = importlib.metadata.metadata("jax").get_all("Provides-Extra")
    for name in ("cuda12", "cuda13", "tpu"):
        assert extras[name] == f"jax[{name}]" and name in offered


def test_every_package_is_listed():
    listed = set(_options()["options"]["packages"].split())
    inside = {
        ".".join(path.parent.relative_to(programs.ROOT).parts)
        for path in (programs.ROOT / "minmax_jax").rglob("__init__.py")
    }
    assert listed == inside | {"minmax_jax.configs", "minmax_jax.experiments"}


@pytest.mark.slow
def test_a_wheel_has_configurations_programs_and_kernels_below_one_name(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(programs.ROOT)], check=True, cwd=tmp_path, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"minmax_jax"}
    for folder, target in (("configs", "configs"), ("experiments", "experiments"), ("minmax_jax/ops/cpu", "ops/cpu")):
        files = [path for path in (programs.ROOT / folder).iterdir() if path.suffix in (".py", ".c", ".h")]
        assert {f"minmax_jax/{target}/{path.name}" for path in files} <= set(names)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_a_program_whose_docstring_shows_its_use(command):
    name = command.replace("-", "_")
    tree = ast.parse((programs.ROOT / "experiments" / f"{name}.py").read_text())
    assert f"python -m experiments.{name} --" in ast.get_docstring(tree)
    assert "run" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_lists_the_commands(argv, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["minmax-jax", *argv])
    cli.main()
    printed = capsys.readouterr().out
    assert all(command in printed for command in cli.COMMANDS)


def test_an_unknown_command_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["minmax-jax", "trian"])
    with pytest.raises(SystemExit, match="'trian'"):
        cli.main()


@pytest.mark.parametrize("form", ["--config={}", "-config={}", "--config {}"])
@pytest.mark.parametrize("name", ["oxford:parity", "configs/oxford.py:parity", "oxford.py:parity"])
def test_a_shipped_configuration_is_found_by_name(form, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = config_files.resolve(["train", *form.format(name).split(), "--workdir=x"])
    path, _, variant = argv[-2].rpartition("=")[2].partition(":")
    assert pathlib.Path(path).samefile(programs.ROOT / "configs" / "oxford.py") and variant == "parity"
    assert argv[0] == "train" and argv[-1] == "--workdir=x"


def test_a_file_of_one_s_own_comes_first(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "oxford.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert config_files.resolve(["--config=configs/oxford.py:a"]) == ["--config=configs/oxford.py:a"]


def test_a_name_that_is_no_configuration_suggests_one():
    with pytest.raises(UserError, match="'oxfrod' is neither a file nor one of .* Did you mean 'oxford'"):
        config_files.resolve(["--config=oxfrod"])


@pytest.mark.parametrize("program", ["train", "evaluate", "refine", "export", "prepare_data", "convert_weights"])
def test_help_is_fast_and_imports_neither_tfds_nor_grain(program):
    command = [sys.executable, "-X", "importtime", "-m", f"experiments.{program}", "--help"]
    done = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, check=True)
    assert f"experiments.{program} --" in done.stdout and "--[no]traceback" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "absl.flags" in imported and not imported & {"tensorflow_datasets", "grain", "matplotlib"}
    # In this process, and by the shorter flag.
    done = programs.run(program.replace("_", "-"), "-h")
    assert done.returncode == 0 and f"experiments.{program} --" in done.stdout and "--[no]traceback" in done.stdout
