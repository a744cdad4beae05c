"""Which files to predict: what a user names on the command line, and how the outputs of each are called."""

import collections
from collections.abc import Iterable, Sequence
import glob
import itertools
import os
import pathlib
from typing import NamedTuple

from minmax_jax.base import file_names
from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import image_endings

STDIN = "-"


class Input(NamedTuple):
    """An image file.

    Attributes:
        path: of the file.
        stem: name of its outputs, without ending; unique, also where a file system ignores case, and cut where it is
            too long.
        name: below the folder that the user named, or of the file.
    """

    path: pathlib.Path
    stem: str
    name: pathlib.PurePath


class Inputs(list[Input]):
    """The image files.

    Attributes:
        left_out: numbers of the files, by ending, that folders hold and that are no images.
    """

    left_out: dict[str, int]


def find(patterns: Sequence[str], stdin: Iterable[str] = (), *, output: pathlib.Path | None = None) -> Inputs:
    """The image files that are named, each once, in the order of their names where a folder or a glob names several.

    Of a folder, the files are images that have an ending of `image_endings`; those that are named one by one, or by a
    glob, may have any.

    Args:
        patterns: files, folders (with all folders in them), globs, or "-" for a list of these, a line each.
        stdin: lines of that list.
        output: folder of the prediction: what folders and globs have there is no input.

    Raises:
        OptionError: for a name that is no file, folder or glob, and if there is no image at all.
    """
    given = []
    for pattern in patterns:
        given += [line.rstrip("\r\n") for line in stdin if line.strip()] if pattern == STDIN else [pattern]
    found: dict[pathlib.Path, pathlib.PurePath] = {}
    others: dict[pathlib.Path, None] = {}
    for pattern in given:
        for path, name in _expand(pattern, others):
            is_named = path == local_path("PATH", pattern)
            if output is None or is_named or not path.resolve().is_relative_to(output.resolve()):
                found.setdefault(path, name)
    left_out = image_endings.count(
        path
        for path in others
        if path not in found and (output is None or not path.resolve().is_relative_to(output.resolve()))
    )
    if not found:
        reason = f": {image_endings.describe(left_out)}" if left_out else ""
        raise OptionError(
            f"{' '.join(given) or 'The list'!r} names no image{reason}. Images in folders have an ending of a format"
            " that is read, such as .jpg, .png or .tif (docs/predict.md); a file that is named one by one may have any."
        )
    inputs = Inputs(Input(path, stem, name) for (path, name), stem in zip(found.items(), _stems(list(found.values()))))
    inputs.left_out = left_out
    return inputs


def name_files(inputs: Sequence[Input]) -> tuple[list[str], str]:
    """A name for each file, with slashes, that no other has, and the folder below which the files are.

    Names are those below the folders that the user named. Where two files have one name so, all are named from the
    nearest folder that holds them all.

    Returns:
        The names, and the folder; "" if there are several.
    """
    names = [item.name.as_posix() for item in inputs]
    paths = [pathlib.Path(os.path.abspath(item.path)) for item in inputs]
    # The file x/a/1.png with the name a/1.png is below x.
    folders = {str(path.parents[len(item.name.parts) - 1]) for item, path in zip(inputs, paths)}
    if len(set(names)) == len(names):
        return names, folders.pop() if len(folders) == 1 else ""
    common = os.path.commonpath(folders)
    return [path.relative_to(common).as_posix() for path in paths], common


def _expand(pattern: str, others: dict[pathlib.Path, None]) -> list[tuple[pathlib.Path, pathlib.PurePath]]:
    """Files, and their names below what the user named; what else folders hold is added to `others`."""
    path = local_path("PATH", pattern)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if not _is_litter(file.relative_to(path)) and file.is_file())
        are_images = [image_endings.is_image(file) for file in inside]
        others.update((file, None) for file, is_image in zip(inside, are_images) if not is_image)
        return [(file, file.relative_to(path)) for file, is_image in zip(inside, are_images) if is_image]
    if path.is_file():
        return [(path, pathlib.PurePath(path.name))]
    if glob.has_magic(pattern):
        matches = (pathlib.Path(match) for match in sorted(glob.glob(str(path), recursive=True)))
        return [
            (match, pathlib.PurePath(match.name))
            for match in matches
            if match.is_file() and not image_endings.is_litter(match.name)
        ]
    raise OptionError(f"{pattern!r} is not a file, a folder or a glob that matches one.")


def _is_litter(name: pathlib.PurePath) -> bool:
    return any(image_endings.is_litter(part) for part in name.parts)


def _stems(names: list[pathlib.PurePath]) -> list[str]:
    """The name without its ending where no other has it; else the whole path, and a number if need be."""
    counts = collections.Counter(file_names.cut(name.stem).lower() for name in names)
    taken = {stem for stem, count in counts.items() if count == 1}
    stems = []
    for name in names:
        stem = file_names.cut(name.stem)
        if counts[stem.lower()] > 1:
            path = "__".join(name.parts).replace(".", "_")
            candidates = itertools.chain([path], (f"{path}_{number}" for number in itertools.count(2)))
            stem = next(cut for cut in map(file_names.cut, candidates) if cut.lower() not in taken)
            taken.add(stem.lower())
        stems.append(stem)
    return stems
