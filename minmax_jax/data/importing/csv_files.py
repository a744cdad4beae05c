"""Own images listed in CSV files, one for each split, in the rows of the published split files or with a header."""

from collections.abc import Iterator
import csv
import dataclasses
import io
import logging
import os
import pathlib

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset, raw_files
from minmax_jax.data import splits as splits_lib
from minmax_jax.data.importing import class_cells, mask_rules, problems, raw_dataset

logger = logging.getLogger(__name__)
_BOX = ("left", "top", "right", "bottom")
_COLUMNS = ("image", "mask", "class", *_BOX)
# What the columns of a file without header are.
_WITHOUT_HEADER = (_COLUMNS[:3], _COLUMNS)
_SEPARATORS = (",", ";", "\t")  # the last two of spreadsheets, by country
# What others call the first column.
_USUAL_HEADS = (
    "image",
    "images",
    "image_id",
    "image_name",
    "image_path",
    "img",
    "file",
    "filename",
    "file_name",
    "path",
)


def read_raw(source: str, folder: str, *, mask_rule: mask_rules.Rule) -> raw_dataset.RawDataset:
    """The images that the files name; the name of an image is its path.

    A row is `image,mask,class`, and `left,top,right,bottom`, in pixels, if the bounding box is known; mask and box may
    be empty. Rows that differ in the box alone are the boxes of one image. Paths are below the source. With
    a header the columns may come in any order, and those of mask and box may be left out.

    Args:
        source: folder that the paths start from.
        folder: holds, anywhere below, one file each whose name starts with train, val (can be left out) and test.
        mask_rule: which pixels of a mask are foreground.

    Raises:
        DataError: for files that cannot be read as such lists. A row that cannot be used is a fault of the release,
            naming file and line.
    """
    root, lists = local_path("source", source), local_path("folds", folder)
    if not root.is_dir():
        raise OptionError(f"source={source!r} is not a folder.")
    if not folder or not lists.is_dir():
        raise OptionError(f"folds={folder!r} is not a folder; it must hold train.csv and test.csv.")
    files = {split: splits_lib.find_files(lists, prefix) for split, prefix in splits_lib.SPLIT_PREFIXES.items()}
    for split, paths in files.items():
        if len(paths) > 1 or (not paths and split != "validation"):
            listed = ", ".join(map(str, paths)) or "none"
            wanted = f"one {splits_lib.SPLIT_PREFIXES[split]}*.csv"
            raise OptionError(f"folds={folder!r} must hold exactly {wanted}, found: {listed}.")
    read = {path for of_split in files.values() for path in of_split}
    if unread := [path for path in splits_lib.find_files(lists, "") if path not in read]:
        logger.warning(
            "%d CSV files in %s are not read: %s. The names of lists begin with train, val and test.",
            *(len(unread), lists, ", ".join(str(path.relative_to(lists)) for path in unread[:5])),
        )
    # In this order, of an image in two splits the later row is that which trains.
    splits, seen, bad = {split: [] for split in files if files[split]}, {}, []
    for split in ("test", "validation", "train"):
        for path in files[split]:
            _read_file(path, root, split, seen=seen, items=splits[split], bad=bad)
    _set_aside_several(splits, seen, bad)
    return raw_dataset.of_own_images(
        splits, bad, mask_rule=mask_rule, description=f"Images of the folder {root}, split by the files in {folder}."
    )


def _read_file(
    path: pathlib.Path,
    root: pathlib.Path,
    split: str,
    *,
    seen: dict[str, str],
    items: list[raw_dataset.Item],
    bad: list[problems.Problem],
) -> None:
    """Adds the rows of a file to `items`, or to what is bad; `seen` has the line of each image."""
    line, places = 0, {}
    for line, row in _read_rows(path):
        where = f"{path}, line {line}"
        try:
            item = _to_item(row, root)
            before = items[places[item.name]] if item.name in places else None
            if before is not None and _is_further_box(item, before):
                items[places[item.name]] = dataclasses.replace(item, boxes=before.boxes + item.boxes)
                continue
            if item.name in seen:
                other = f", with the class {before.class_name!r}" if _is_other_class(item, before) else ""
                raise dataset.DataError(f"image {item.name!r} is already in {seen[item.name]}{other}. Keep one row.")
        except dataset.DataError as error:
            bad.append(problems.Problem(split, row["image"] or f"line {line}", f"{where}: {error}", row["class"]))
        else:
            seen[item.name], places[item.name] = where, len(items)
            items.append(item)
    if not line:
        raise dataset.DataError(
            f"{path} lists no images. Add some" + (", or delete it." if split == "validation" else ".")
        )


def _set_aside_several(
    splits: dict[str, list[raw_dataset.Item]], seen: dict[str, str], bad: list[problems.Problem]
) -> None:
    """Moves the images whose class is a list to what is bad."""
    known = {item.class_name for items in splits.values() for item in items}
    listed = {name: reason for name in known if (reason := class_cells.explain(name, known))}
    for split, items in splits.items():
        for item in items:
            if item.class_name in listed:
                bad.append(problems.Problem(split, item.name, f"{seen[item.name]}: {listed[item.class_name]}"))
        splits[split] = [item for item in items if item.class_name not in listed]


def _is_other_class(item: raw_dataset.Item, before: raw_dataset.Item | None) -> bool:
    return before is not None and item.class_name != before.class_name


def _is_further_box(item: raw_dataset.Item, before: raw_dataset.Item) -> bool:
    """Whether a row differs from an earlier one of its image in its box alone."""
    is_same = dataclasses.replace(item, boxes=()) == dataclasses.replace(before, boxes=())
    return is_same and bool(item.boxes) and bool(before.boxes) and item.boxes[0] not in before.boxes


def _to_item(row: dict[str, str], root: pathlib.Path) -> raw_dataset.Item:
    if not row["image"] or not row["class"]:
        raise dataset.DataError(f"the row names no {'class' if row['image'] else 'image'}.")
    place, mask = _place(row, "image", root), row.get("mask", "")
    return raw_dataset.Item(
        name=str(place),
        class_name=row["class"],
        image=root / place,
        mask=root / _place(row, "mask", root) if mask else None,
        boxes=_to_box([row.get(side, "") for side in _BOX]),
    )


def _place(row: dict[str, str], column: str, root: pathlib.Path) -> pathlib.PurePosixPath:
    """The path of a file below the source; absolute ones are accepted where they are there."""
    place = pathlib.PurePosixPath(row[column].replace("\\", "/"))
    # Whichever way the source was named: with links or "..", or without.
    for base in (root.absolute(), pathlib.Path(os.path.normpath(root.absolute())), root.resolve()):
        if place.is_absolute() and place.is_relative_to(base):
            place = place.relative_to(base)
    if place.is_absolute() or ".." in place.parts:
        raise dataset.DataError(f"{column} {str(place)!r} must be a path below {str(root)!r}.")
    return place


def _read_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line number, {column: value})."""
    text = raw_files.read_text(path)
    if "\0" in text:
        raise dataset.DataError(f"{path} has NUL bytes. Save it as a CSV file in UTF-8.")
    layouts = _WITHOUT_HEADER
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_find_separator(text), strict=True)
    try:
        for row in reader:
            values = [value.strip() for value in row]
            names = [value.lower() for value in values]
            if reader.line_num == 1 and {"image", "class"} <= set(names):
                _check_header(names, path)
                layouts = (names,)
            elif reader.line_num == 1 and names and names[0] in _USUAL_HEADS:
                raise dataset.DataError(
                    f"{path}, line 1: {row} looks like the names of columns, of which one must be 'image' and one"
                    " 'class', with the name of its class in each row. A column for each class is not read."
                )
            elif any(values):
                columns = next((layout for layout in layouts if len(layout) == len(values)), None)
                if columns is None:
                    expected = " or ".join(",".join(layout) for layout in layouts)
                    raise dataset.DataError(f"{path}, line {reader.line_num}: {row} is not {expected}.")
                yield reader.line_num, dict(zip(columns, values))
    except csv.Error as error:
        raise dataset.DataError(
            f"{path}, line {reader.line_num}, is not a row of a CSV file ({error}). Correct it."
        ) from error


def _find_separator(text: str) -> str:
    """The first character by which the first row is a header or has as many columns as a row without header."""
    first = next(iter(text.splitlines()), "")
    for separator in _SEPARATORS:
        values = [value.strip(' "').lower() for value in first.split(separator)]
        if {"image", "class"} <= set(values) or len(values) in map(len, _WITHOUT_HEADER):
            return separator
    return _SEPARATORS[0]


def _check_header(names: list[str], path: pathlib.Path) -> None:
    for name in names:
        if name not in _COLUMNS or names.count(name) > 1:
            raise dataset.DataError(
                f"{path}, line 1: the columns must be of {','.join(_COLUMNS)}, each at most once; {name!r} must go."
            )


def _to_box(sides: list[str]) -> tuple[tuple[float, float, float, float], ...]:
    if not any(sides):
        return ()
    try:
        left, top, right, bottom = map(float, sides)
        if not np.isfinite([left, top, right, bottom]).all():
            raise ValueError
    except ValueError as error:
        raise dataset.DataError(f"the box {sides} is not four numbers.") from error
    if 0 < bottom - top < 1 and 0 < right - left < 1:
        raise dataset.DataError(f"the box {sides} is smaller than a pixel: give pixels, not shares of the image.")
    return ((top, left, bottom, right),)
