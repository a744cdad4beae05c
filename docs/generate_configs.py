"""Writes docs/configs.md from the comments of configs/common.py: `python docs/generate_configs.py`."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configs.md"
_HEAD = """# Configurations

Every field of a configuration with default, unit and source; made from [configs/common.py](../configs/common.py) by
`python docs/generate_configs.py`. Set a field on the command line, as in `--config.train.epochs=10`.

| shipped | what it trains |
|---|---|
"""
_ASSIGNMENT = re.compile(r"    (?P<target>[\w.]+(?: = \w+)?) = (?P<value>.+?)(?:  # (?P<comment>.*))?$")


def shipped() -> list[str]:
    """A table row per shipped configuration: its name and the first line of its docstring."""
    rows = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.stem not in ("__init__", "common", "variants"):
            first = path.read_text().split('"""')[1].splitlines()[0]
            rows.append(f"| `--config={path.stem}` | {first} |")
    return rows


def groups() -> dict[str, tuple[str, list[tuple[str, str, str]]]]:
    """Comment of each group, and its (field, default, comment), in the order of the file."""
    prefixes, found, pending = {"config": ""}, {"": ("", [])}, []
    lines = (ROOT / "configs" / "common.py").read_text().splitlines()
    for line in lines[lines.index("    config = ml_collections.ConfigDict()") + 1 :]:
        if line.strip().startswith("# "):
            pending.append(line.strip().removeprefix("# "))
        elif match := _ASSIGNMENT.match(line):
            comment = " ".join([*pending, *([match["comment"]] if match["comment"] else [])])
            pending = []
            if "ConfigDict()" in match["value"]:
                path, name = match["target"].split(" = ")
                owner, _, field = path.rpartition(".")
                prefixes[name] = f"{prefixes[owner]}{field}."
                found[prefixes[name]] = comment, []
            else:
                owner, _, field = match["target"].rpartition(".")
                found[prefixes[owner]][1].append((field, match["value"], comment))
    return found


def page() -> str:
    """The text of docs/configs.md."""
    parts = [_HEAD + "\n".join(shipped())]
    for prefix, (description, fields) in groups().items():
        title = f"`config.{prefix.removesuffix('.')}`" if prefix else "Top level"
        rows = [f"| `{name}` | `{value}` | {comment} |" for name, value, comment in fields]
        head = [
            f"## {title}",
            "",
            *([description, ""] if description else []),
            "| field | default | |",
            "|---|---|---|",
        ]
        parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
