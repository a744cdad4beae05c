"""Finds the file that `--config` names: a path, or the name of a configuration that is shipped."""

import difflib
import importlib.util
import pathlib

from minmax_jax.base.errors import UserError
from minmax_jax.base.paths import local_path


def resolve(argv: list[str]) -> list[str]:
    """The command line with the path of a shipped configuration in place of its name.

    `--config=oxford:parity` and `--config=configs/oxford.py:parity` mean the same, also where there is no such folder.

    Raises:
        UserError: if there is neither such a file nor such a configuration.
    """
    argv = list(argv)
    for index, argument in enumerate(argv):
        if argument in ("--config", "-config") and index + 1 < len(argv):
            argv[index + 1] = _resolve(argv[index + 1])
        elif argument.startswith(("--config=", "-config=")):
            name, _, value = argument.partition("=")
            argv[index] = f"{name}={_resolve(value)}"
    return argv


def _resolve(value: str) -> str:
    path, colon, variant = value.partition(":")
    if (file := local_path("--config", path)).is_file():
        return f"{file}{colon}{variant}"
    folder = pathlib.Path(importlib.util.find_spec("minmax_jax.configs").origin).parent
    shipped = {file.stem: file for file in sorted(folder.glob("*.py")) if file.stem not in ("__init__", "variants")}
    name = path.removeprefix("configs/").removesuffix(".py")
    if name not in shipped:
        close = difflib.get_close_matches(name, shipped, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(f"--config={path!r} is neither a file nor one of {', '.join(shipped)}.{hint}")
    return f"{shipped[name]}{colon}{variant}"
