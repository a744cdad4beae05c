"""Annotations of other programs, given to the images that they were drawn on."""

import collections
from collections.abc import Sequence
import dataclasses
import logging
import pathlib

from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset, image_endings
from minmax_jax.data.importing import annotation_kinds, image_folder, raw_dataset, regions
from minmax_jax.data.importing.annotation_entries import Entry

logger = logging.getLogger(__name__)
_MAX_NAMED = 5
# Of QuPath and labelme. QuPath marks by a star what is no class of tissue, such as Region*.
_IGNORED, _BACKGROUND, _MARK = ("Ignore*", "__ignore__"), ("_background_",), "*"


def find_files(annotations: str) -> list[pathlib.Path]:
    """The file, or those of a folder and its folders that may be annotations, by their ending.

    Raises:
        OptionError: if there is none.
    """
    path = local_path("annotations", annotations)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise OptionError(f"annotations={annotations!r} does not exist.")
    inside = [file for file in sorted(path.rglob("*")) if file.is_file() and not image_endings.is_litter(file.name)]
    files = [file for file in inside if file.name.lower().endswith(annotation_kinds.ENDINGS)]
    if not files:
        for file in inside[:1]:
            annotation_kinds.read(file, pathlib.PurePath(file.name))  # says what it is
        raise OptionError(
            f"annotations={annotations!r} has no file that ends in {', '.join(annotation_kinds.ENDINGS)}."
            f" {annotation_kinds.READ} are read."
        )
    return files


def among(source: str, annotations: str) -> frozenset[pathlib.Path]:
    """The annotation files in the folder of the images, and the folder that holds them, if it is in that folder.

    Raises:
        OptionError: as `find_files`.
    """
    root, path = (local_path(name, value) for name, value in (("source", source), ("annotations", annotations)))
    if not path.resolve().is_relative_to(root.resolve()):
        return frozenset()
    # By the path that the images' folder is read under.
    found = [path, *find_files(annotations)] if path.resolve() != root.resolve() else find_files(annotations)
    return frozenset(root / file.resolve().relative_to(root.resolve()) for file in found)


def attach(
    raw: raw_dataset.RawDataset,
    annotations: str,
    *,
    foreground: str = "",
    ignore: str = "",
) -> raw_dataset.RawDataset:
    """The dataset with annotations in place of masks.

    An image that no file names has none. One that a COCO file lists without annotations has an empty mask, and so has
    one whose own file has no region.

    Args:
        raw: own images without masks and boxes.
        annotations: a file or a folder.
        foreground: categories that are foreground, separated by commas, by name or COCO's id; "" for all, except those
            that QuPath marks by a star, or labelme as background.
        ignore: categories whose pixels are left out of the evaluation; "" for those that QuPath or labelme calls so.

    Raises:
        OptionError: for a file of another kind, a category that is in no file, or if no image is named.
        DataError: if a file could be of several images, or if two are of one image. A damaged file is a fault of its
            image.
    """
    if masked := next((item for item in raw if item.mask or item.boxes), None):
        raise OptionError(
            f"annotations={annotations!r}: {masked.name!r} has a mask or a box already. Give one of them."
        )
    entries = _read(annotations)
    chosen = _match(entries, raw, annotations)
    categories = _choose(entries, foreground, ignore, annotations)
    splits = {
        split: [
            dataclasses.replace(item, annotation=_to_annotation(chosen[item.name], categories))
            if item.name in chosen
            else item
            for item in items
        ]
        for split, items in raw.splits.items()
    }
    description = f"{raw.description} Annotations: {annotations}, {', '.join(sorted(categories[0]))}."
    return dataclasses.replace(raw, splits=splits, description=description)


def _to_annotation(entry: Entry, categories: tuple[frozenset[str], frozenset[str]]) -> regions.Annotation:
    return regions.Annotation(entry.path, entry.parse, *categories)


def _read(annotations: str) -> list[Entry]:
    files = find_files(annotations)
    root = local_path("annotations", annotations)
    entries, errors, skipped = [], [], collections.Counter()
    for path in files:
        place = path.relative_to(root) if path != root else pathlib.PurePath(path.name)
        try:
            found = annotation_kinds.read(path, place)
        except dataset.DataError as error:
            errors.append(error)
            name = place.with_name(annotation_kinds.without_ending(place.name)).as_posix()
            found = [Entry(path, (name,), _raising(error), {})]
        for entry in found:
            skipped.update(entry.skipped)
        entries += found
    if len(errors) == len(files):
        raise errors[0]
    if skipped:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        logger.warning("Shapes of %s that cover no area are not read: %s.", annotations, counts)
    return entries


def _raising(error: dataset.DataError):
    def parse() -> regions.Drawing:
        raise error

    return parse


def _match(entries: Sequence[Entry], raw: raw_dataset.RawDataset, annotations: str) -> dict[str, Entry]:
    """The entry of each image that has one, by the image's name."""
    items = list(raw)
    by_file = collections.defaultdict(list)
    for item in items:
        path = pathlib.PurePosixPath(item.name)
        for key in {path.name, path.stem}:
            by_file[image_folder.composed(key)].append(path)
    chosen, scores, unused = {}, {}, []
    for entry in entries:
        place, score = _find(entry, by_file)
        if place is None or score < scores.get(place, score):
            unused.append(entry.names[0])
            continue
        if score == scores.get(place):
            first = f"{chosen[place].names[0]!r} ({chosen[place].path.name})"
            raise dataset.DataError(
                f"annotations={annotations}: {first} and {entry.names[0]!r} ({entry.path.name}) are both of the image"
                f" {place!r}. Keep one."
            )
        if place in chosen:
            unused.append(chosen[place].names[0])
        chosen[place], scores[place] = entry, score
    if not chosen:
        raise OptionError(
            f"annotations={annotations!r} has no annotation of an image: it names {entries[0].names[0]!r}"
            f" and the first image is {items[0].name!r}. Names of files must agree."
            if entries
            else f"annotations={annotations!r} lists no image."
        )
    logger.info("%d of %d images have an annotation in %s.", len(chosen), len(items), annotations)
    if unused:
        named = ", ".join(unused[:_MAX_NAMED]) + (" and others" if len(unused) > _MAX_NAMED else "")
        logger.warning("%d of %d annotated images are not among the images: %s.", len(unused), len(entries), named)
    return chosen


def _find(entry: Entry, by_file: dict[str, list[pathlib.PurePosixPath]]) -> tuple[str | None, tuple[int, int]]:
    """The name of the image whose path agrees best with that of an entry, and how well."""
    ambiguous = ""
    for name in entry.names:
        path = pathlib.PurePosixPath(image_folder.composed(name.replace("\\", "/")))
        candidates = [
            (_agreement(path, other), other)
            for other in by_file.get(path.name) or by_file.get(path.stem, ())
            if not _are_of_other_splits(path, other)
        ]
        best = max((score for score, _ in candidates), default=None)
        places = [other for score, other in candidates if score == best]
        if len(places) == 1:
            return str(places[0]), best
        if places:
            ambiguous = ambiguous or f"{name!r}, which could be {str(places[0])!r} or {str(places[1])!r}"
    if ambiguous:
        raise dataset.DataError(f"{entry.path} names {ambiguous}. Give its folder, or rename one.")
    return None, (0, 0)


def _agreement(name: pathlib.PurePosixPath, image: pathlib.PurePosixPath) -> tuple[int, int]:
    """Number of folders at the end that agree, and of all that do."""
    pairs = list(zip(name.parts[-2::-1], image.parts[-2::-1]))
    same = next((count for count, (one, other) in enumerate(pairs) if one != other), len(pairs))
    return same, len(set(name.parts[:-1]) & set(image.parts[:-1]))


def _are_of_other_splits(name: pathlib.PurePosixPath, image: pathlib.PurePosixPath) -> bool:
    one, other = (
        {image_folder.SPLIT_NAMES[part.lower()] for part in path.parts[:-1] if part.lower() in image_folder.SPLIT_NAMES}
        for path in (name, image)
    )
    return bool(one and other and not one & other)


def _choose(
    entries: Sequence[Entry], foreground: str, ignore: str, annotations: str
) -> tuple[frozenset[str], frozenset[str]]:
    """The categories that are foreground, and those that are left out."""
    known = _by_id(entries)
    names = frozenset(name for entry in entries for name in entry.categories.values())
    ignored = _parse("ignore", ignore, names, known, annotations) if ignore else names.intersection(_IGNORED)
    if foreground:
        chosen = _parse("foreground", foreground, names, known, annotations)
    else:
        chosen = {name for name in names - ignored if not name.endswith(_MARK) and name not in _BACKGROUND}
    if both := sorted(chosen & ignored):
        raise OptionError(f"foreground={foreground!r} and ignore={ignore!r} both name {both[0]!r}. Keep one.")
    logger.info(
        "Foreground: %s. Left out of the evaluation: %s. Background: %s.",
        *(", ".join(sorted(part)) or "nothing" for part in (chosen, ignored, names - chosen - ignored)),
    )
    return frozenset(chosen), frozenset(ignored)


def _by_id(entries: Sequence[Entry]) -> dict[str, str]:
    """The category of each id that is the same in all files."""
    names = collections.defaultdict(set)
    for categories in {id(entry.categories): entry.categories for entry in entries}.values():
        for key, name in categories.items():
            names[key].add(name)
    return {key: min(found) for key, found in names.items() if len(found) == 1}


def _parse(flag: str, text: str, names: frozenset[str], known: dict[str, str], annotations: str) -> frozenset[str]:
    if text in names:  # a name with a comma
        return frozenset([text])
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in names and part not in known:
            raise OptionError(
                f"{flag}={text!r}: {part!r} is no category of {annotations}. They are:"
                f" {', '.join(sorted(names)) or 'none'}."
            )
    return frozenset(part if part in names else known[part] for part in parts)
