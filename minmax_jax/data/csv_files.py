"""Own images listed in CSV files, one for each split, in the rows of the published split files or with a header."""

import csv
import pathlib

from minmax_jax.data import dataset, folds, mask_rules, release

_BOX = ("left", "top", "right", "bottom")
# What the columns of a file without header are.
_WITHOUT_HEADER = (("image", "mask", "class"), ("image", "mask", "class", *_BOX))


def read_release(source: str, folder: str, *, mask_rule: mask_rules.Rule) -> release.Release:
    """The images that the files name; the name of an image is its path.

    A row is `image,mask,class`, and `left,top,right,bottom`, in pixels, if the bounding box is known; mask and box may
    be empty. With a header the columns may come in any order, and those of mask and box may be left out.

    Args:
        source: folder that the paths start from.
        folder: holds, anywhere below, one file each whose name starts with train, valid (can be left out) and test.
        mask_rule: which pixels of a mask are foreground.

    Raises:
        DataError: naming file and line of a row that cannot be used, or if a class has no training image.
    """
    root = pathlib.Path(source)
    if not root.is_dir():
        raise dataset.DataError(f"--source={source!r} is not a folder.")
    if not folder or not pathlib.Path(folder).is_dir():
        raise dataset.DataError(f"--folds={folder!r} is not a folder; it must hold train.csv and test.csv.")
    files = {split: folds.find_files(pathlib.Path(folder), prefix) for split, prefix in folds.SPLIT_PREFIXES.items()}
    for split, found in files.items():
        if len(found) > 1 or (not found and split != "validation"):
            listed = ", ".join(map(str, found)) or "none"
            wanted = f"one {folds.SPLIT_PREFIXES[split]}*.csv"
            raise dataset.DataError(f"--folds={folder!r} must hold exactly {wanted}, found: {listed}.")
    splits, seen = {}, {}
    for split, found in files.items():
        for path in found:
            splits[split] = list(_read_items(path, root, seen))
    return release.Release(
        class_names=release.class_names_of(splits),
        splits=splits,
        mask_rule=mask_rule,
        description=f"Images of the folder {root}, split by the files in {folder}.",
    )


def _read_items(path: pathlib.Path, root: pathlib.Path, seen: dict[str, str]):
    """Yields the items of a file; `seen` tells where each image stood."""
    for line, row in _read_rows(path):
        where = f"{path}, line {line}"
        name = row["image"].replace("\\", "/")
        place = pathlib.PurePosixPath(name)
        if not name or not row["class"]:
            raise dataset.DataError(f"{where}: the row names no {'class' if name else 'image'}.")
        if place.is_absolute() or ".." in place.parts:
            raise dataset.DataError(f"{where}: image {name!r} must be a path below --source={str(root)!r}.")
        if name in seen:
            raise dataset.DataError(f"{where}: image {name!r} stands already in {seen[name]}.")
        seen[name] = where
        mask = row.get("mask", "").replace("\\", "/")
        yield release.Item(
            name=name,
            class_name=row["class"],
            image=root / name,
            mask=root / mask if mask else None,
            boxes=_read_box([row.get(side, "") for side in _BOX], where),
        )


def _read_rows(path: pathlib.Path):
    """Yields (line number, {column: value})."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            layouts = _WITHOUT_HEADER
            for row in (reader := csv.reader(file)):
                values = [value.strip() for value in row]
                names = [value.lower() for value in values]
                if reader.line_num == 1 and {"image", "class"} <= set(names):
                    layouts = (names,)
                elif any(values):
                    columns = next((layout for layout in layouts if len(layout) == len(values)), None)
                    if columns is None:
                        expected = " or ".join(",".join(layout) for layout in layouts)
                        raise dataset.DataError(f"{path}, line {reader.line_num}: {row} is not {expected}.")
                    yield reader.line_num, dict(zip(columns, values))
    except (UnicodeDecodeError, csv.Error) as error:
        raise dataset.DataError(f"{path} is no CSV file in UTF-8 ({error}). Save it as one.") from error


def _read_box(sides: list[str], where: str) -> tuple[tuple[float, float, float, float], ...]:
    if not any(sides):
        return ()
    try:
        left, top, right, bottom = map(float, sides)
    except ValueError as error:
        raise dataset.DataError(f"{where}: the box {sides} is not four numbers.") from error
    return ((top, left, bottom, right),)
