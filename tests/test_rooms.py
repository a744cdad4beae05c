"""Imports go down only: the rooms of docs/architecture.md, whose table begins with the ground floor."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
# Of each line, the rooms of one floor, which know nothing of each other.
_FLOORS = [
    {"base", "method"},
    {"ops"},
    {"distributed", "losses", "masks", "data"},
    {"models"},
    {"training"},
    {"evaluation", "interop", "minmax"},
    {"baselines", "refinement", "report"},
    {"configs"},
    {"runs.building"},
    {"runs.folder"},
    {"runs.drawing"},
    {"runs"},
    {"export", "prediction"},
    {"serve"},
    {"minmax_jax"},
    {"experiments"},
]
_FLOOR_OF = {room: floor for floor, rooms in enumerate(_FLOORS) for room in rooms}


def _room_of(module: str) -> str:
    """ "runs.building" of "minmax_jax.runs.building.options"; "minmax_jax" of the package itself."""
    parts = module.split(".")[1:]
    two, one = ".".join(parts[:2]), ".".join(parts[:1])
    return two if two in _FLOOR_OF else one or "minmax_jax"


def _modules() -> dict[str, pathlib.Path]:
    files = [
        *(_ROOT / "minmax_jax").rglob("*.py"),
        *(_ROOT / "experiments").glob("*.py"),
        *(_ROOT / "configs").glob("*.py"),
    ]
    found = {}
    for path in files:
        parts = path.relative_to(_ROOT).with_suffix("").parts
        parts = parts if parts[0] == "minmax_jax" else ("minmax_jax", *parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


_MODULES = _modules()


def _imports(path: pathlib.Path) -> set[str]:
    """Modules of the project that a file names, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:  # others stay within their room
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in _MODULES else node.module)
    return {name for name in found if name.split(".")[0] == "minmax_jax"}


@pytest.mark.parametrize("module", sorted(_MODULES))
def test_a_module_imports_from_its_room_and_those_below(module):
    room = _room_of(module)
    for name in _imports(_MODULES[module]):
        below = _FLOOR_OF[_room_of(name)] < _FLOOR_OF[room]
        assert below or _room_of(name) == room, f"{module} ({room}) imports {name}"


def test_the_contract_imports_nothing_of_the_project():
    assert _imports(_MODULES["minmax_jax.method"]) == set()


def test_only_the_table_knows_a_method():
    """What runs any method reads what it needs to know of one from its contract."""
    may = {"minmax_jax.runs.building.methods", "minmax_jax"}
    for module, path in _MODULES.items():
        if _room_of(module) not in ("minmax", "baselines") and module not in may:
            assert not {_room_of(name) for name in _imports(path)} & {"minmax", "baselines"}, module


def test_few_modules_stand_at_the_root():
    assert len([path for path in (_ROOT / "minmax_jax").glob("*.py") if path.stem != "__init__"]) <= 6


def test_each_room_stands_in_the_table_of_the_page():
    page = (_ROOT / "docs" / "architecture.md").read_text()
    rooms = {_room_of(module).replace(".", "/") for module in _MODULES} - {"minmax_jax", "experiments", "configs"}
    missing = {room for room in rooms if f"`{room}/`" not in page and f"`{room}.py`" not in page}
    assert not missing
