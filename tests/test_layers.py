"""What may import what."""

import ast
import sys

import pytest

from tests import programs


def _imports(path):
    """The names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_contract_of_a_method_imports_nothing_of_the_project():
    """A method needs the contract alone, and no method is part of it."""
    found = {name.partition(".")[0] for name in _imports(programs.ROOT / "minmax_jax/method.py")}
    assert found - sys.stdlib_module_names == {"flax", "jax", "numpy"}


@pytest.mark.parametrize("room", ["data", "refinement", "evaluation", "report", "prediction", "export", "serve"])
def test_rooms_for_all_methods_import_none(room):
    """They read what they need to know of a method from its contract."""
    methods = {"minmax", "localizer_alone", "objective", "step", "passes", "erasing", "recorded_erasing", "inference"}
    for path in (programs.ROOT / "minmax_jax" / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("minmax_jax"):
                names = {*node.module.split("."), *(alias.name for alias in node.names)}
                assert not names & methods, path
