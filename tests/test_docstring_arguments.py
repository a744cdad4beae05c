"""Docstrings of public functions name every parameter, and none that was renamed or removed."""

import ast
from collections.abc import Iterator
import re

from tests import programs

_MIN_PARAMETERS = 3  # a signature of two says enough
_MODULES = [
    *sorted((programs.ROOT / "minmax_jax").rglob("*.py")),
    *sorted((programs.ROOT / "experiments").glob("*.py")),
]


def _public_functions(body: list[ast.stmt], *, of: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of a module and methods of its classes, by name, without those that begin with an underscore."""
    for item in body:
        if getattr(item, "name", "_").startswith("_"):
            continue
        if isinstance(item, ast.ClassDef):
            yield from _public_functions(item.body, of=f"{item.name}.")
        elif isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{of}{item.name}", item


def _parameters(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    found = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    rest = ("*", arguments.vararg), ("**", arguments.kwarg)
    found += [f"{stars}{argument.arg}" for stars, argument in rest if argument is not None]
    return found[1:] if found[:1] in (["self"], ["cls"]) else found


def _documented(function: ast.FunctionDef) -> list[str] | None:
    """The names in the section Args, or None without one."""
    text = ast.get_docstring(function) or ""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, flags=re.MULTILINE)
    return section and re.findall(r"^    (\*{0,2}\w+):", section[1], flags=re.MULTILINE)


def _problems(source: str) -> Iterator[str]:
    for name, function in _public_functions(ast.parse(source).body):
        parameters, documented = _parameters(function), _documented(function)
        if documented is None and len(parameters) < _MIN_PARAMETERS:
            continue
        if missing := [parameter for parameter in parameters if parameter not in (documented or ())]:
            yield f"{name} needs under Args: {', '.join(missing)}"
        if unknown := [parameter for parameter in documented or () if parameter not in parameters]:
            yield f"{name} has no parameter {', '.join(unknown)}"


def test_parameters_of_public_functions_are_documented():
    problems = {path.relative_to(programs.ROOT).as_posix(): list(_problems(path.read_text())) for path in _MODULES}
    assert not {path: found for path, found in problems.items() if found}


def test_many_functions_are_looked_at():
    functions = [item for path in _MODULES for _, item in _public_functions(ast.parse(path.read_text()).body)]
    assert sum(len(_parameters(function)) >= _MIN_PARAMETERS for function in functions) > 150


def test_what_is_missing_and_what_is_unknown_are_named():
    source = '''
class Net:
    def apply(self, x, y, *rest, **options):
        """Applies it.

        Args:
            x: an array;
                y: is not documented by a line that goes on.
            z: was renamed.
            *rest: others.

        Returns:
            options: nothing.
        """

    def _hidden(self, a, b, c):
        """Not for users."""

def short(a, b):
    """Says enough."""

def long(a, /, b, *, c):
    """Does not."""
'''
    assert list(_problems(source)) == [
        "Net.apply needs under Args: y, **options",
        "Net.apply has no parameter z",
        "long needs under Args: a, b, c",
    ]
