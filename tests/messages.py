"""The texts in the sources of the package that users can see, with "..." for what is filled in."""

import ast
import functools
import re

from tests import programs

GAP = "..."
# What the ways of formatting fill in: %-formats of the logger, templates of JavaScript, and str.format.
_FILLED = re.compile(r"%[-+.\d]*[a-zA-Z]|\$\{[^}]*\}|\{\}")


@functools.cache
def texts() -> tuple[str, ...]:
    """String literals of the Python files, joined where they are added, and the lines of the page's own files."""
    files = [path for folder in ("minmax_jax", "experiments") for path in sorted((programs.ROOT / folder).rglob("*.*"))]
    found = []
    for path in files:
        if path.suffix == ".py":
            found += _literals(ast.parse(path.read_text(encoding="utf-8")))
        elif path.suffix in (".js", ".html", ".jinja"):
            found += path.read_text(encoding="utf-8").splitlines()
    return tuple(_FILLED.sub(GAP, text) for text in found)


def is_printed(message: str) -> bool:
    """Whether the constant parts of a message follow each other in one text of the sources."""
    parts = [re.escape(part) for part in message.split(GAP) if part.strip()]
    pattern = re.compile(".*?".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in texts())


def _literals(tree: ast.AST) -> list[str]:
    return [text for node in ast.walk(tree) if (text := _text(node))]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or GAP for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return (left or GAP) + (right or GAP) if left or right else ""
    return ""
