"""Own images in folders: DIR/<split>/<class>/* or DIR/<class>/*, with masks in a second such folder."""

from collections.abc import Collection
import logging
import pathlib
import re
import unicodedata

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset, image_endings
from minmax_jax.data import splits as splits_lib
from minmax_jax.data.importing import mask_rules, raw_dataset

logger = logging.getLogger(__name__)
# By the name of a folder in lower case.
SPLIT_NAMES = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"valid": "validation", "val": "validation", "validation": "validation"},
}
# Folders of these names are rarely classes.
_PARTS = {"image", "images", "img", "imgs", "mask", "masks", "label", "labels", "annotation", "annotations", "gt"}
_LAYOUTS = "The layout is DIR/<class>/* or DIR/<split>/<class>/*, with splits named train, valid and test."
_MASK_OF = re.compile(r"(.+?)[ _-]?(?:mask|seg|segmentation|label|gt|anno|annotation)(?:[ _-]?\d+)?", re.IGNORECASE)
_MAX_NAMED = 5


def read_raw(
    source: str,
    *,
    masks: str = "",
    mask_rule: mask_rules.Rule,
    test_share: float = 0.2,
    seed: int = 0,
    left_out: Collection[pathlib.Path] = (),
) -> raw_dataset.RawDataset:
    """The images of a folder; the name of an image is its path in it.

    Args:
        source: DIR. Where its folders are named train, valid (or val, validation; can be left out) and test, they are
            the splits; otherwise they are the classes, and a share of each class tests. Files with endings that
            `image_endings` lacks are left out, with a warning.
        masks: folder with the masks, laid out alike; a mask has the name of its image, with any ending. Images without
            one are used as such.
        mask_rule: which pixels of a mask are foreground.
        test_share: of each class, rounded up, where the folders are classes.
        seed: of that choice.
        left_out: files and folders among the images that are not read, such as annotations.

    Raises:
        DataError: if the folders are laid out otherwise, if one is empty or cannot be read, or if no mask belongs to an
            image.
    """
    root, of_masks = local_path("source", source), local_path("masks", masks) if masks else None
    if not root.is_dir():
        raise OptionError(f"source={source!r} is not a folder.")
    if of_masks and not of_masks.is_dir():
        raise OptionError(f"masks={masks!r} is not a folder.")
    folders, others = {folder.name: folder for folder in _entries(root, left_out)}, []
    if not {name.lower() for name in folders} & SPLIT_NAMES.keys():
        everything = _read_classes(root, root, of_masks, left_out, others)
        train, test = _choose_test(everything, share=test_share, seed=seed)
        splits = {"train": [everything[index] for index in train], "test": [everything[index] for index in test]}
    else:
        splits = {
            _split_of(name, root): _read_classes(folder, root, of_masks, left_out, others)
            for name, folder in folders.items()
        }
        if "test" not in splits and "validation" in splits:
            given = next(name for name in folders if SPLIT_NAMES[name.lower()] == "validation")
            raise dataset.DataError(
                f"{root} has no folder 'test', only {sorted(folders)}. Rename {given!r} to 'test': a share of the"
                " training images then validates. Or move a part of 'train' to 'test'."
            )
        missing = {"train", "test"} - splits.keys()
        if missing:
            raise dataset.DataError(f"{root} has no folder {min(missing)!r}, only {sorted(folders)}. {_LAYOUTS}")
        if len(splits) < len(folders):
            raise dataset.DataError(f"{root} has two folders of one split: {sorted(folders)}. Keep one.")
    if masks and not any(item.mask for items in splits.values() for item in items):
        raise OptionError(f"masks={masks!r} contains no mask of an image: it must have the layout of {root}.")
    if others:
        logger.warning("%s.", image_endings.describe(image_endings.count(others)))
    _warn(splits, of_masks)
    return raw_dataset.of_own_images(splits, mask_rule=mask_rule, description=f"Images of the folder {root}.")


def _entries(folder: pathlib.Path, left_out: Collection[pathlib.Path] = ()) -> list[pathlib.Path]:
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise dataset.DataError(
            f"{folder} cannot be read ({error.strerror}). Change its permissions or move it."
        ) from error
    return [path for path in paths if not image_endings.is_litter(path.name) and path not in left_out]


def _warn(splits: dict[str, list[raw_dataset.Item]], masks: pathlib.Path | None) -> None:
    """Names what was read but is probably not meant."""
    items = [item for of_split in splits.values() for item in of_split]
    if suspects := sorted({item.class_name for item in items if item.class_name.lower() in _PARTS}):
        logger.warning(
            "The folders %s are read as classes. Masks are given by --masks=DIR, in the layout of the images.", suspects
        )
    if masks_found := _find_masks_among(items):
        logger.warning(
            "%d files look like masks of images in the same folder and are read as images: %s%s. Move them to another"
            " folder, each with the name of its image, and give that by --masks=DIR.",
            *(len(masks_found), ", ".join(masks_found[:_MAX_NAMED])),
            " and others" if len(masks_found) > _MAX_NAMED else "",
        )
    if masks is None:
        return
    used = {item.mask for item in items}
    files = [path for path in sorted(masks.rglob("*")) if path.is_file() and not image_endings.is_litter(path.name)]
    unused = [path for path in files if path not in used]
    if unused:
        logger.warning(
            "%d of %d masks belong to no image, and %d of %d images have no mask. A mask has the folder and the name of"
            " its image, with any ending. Not used: %s%s.",
            *(len(unused), len(unused) + len(used - {None}), sum(not item.mask for item in items), len(items)),
            ", ".join(str(path.relative_to(masks)) for path in unused[:_MAX_NAMED]),
            " and others" if len(unused) > _MAX_NAMED else "",
        )


def _find_masks_among(items: list[raw_dataset.Item]) -> list[str]:
    """Names of images such as `a_mask.png` next to an `a.png`."""
    stems = {item.image.parent / item.image.stem for item in items}
    matches = ((item, _MASK_OF.fullmatch(item.image.stem)) for item in items)
    return [item.name for item, match in matches if match and item.image.parent / match[1] in stems]


def _split_of(name: str, root: pathlib.Path) -> str:
    if name.lower() not in SPLIT_NAMES:
        raise dataset.DataError(
            f"{root / name} is not a split: if one folder is named train, valid or test, all must be. Where that is the"
            " name of a class, use DIR/train/<class>/* and DIR/test/<class>/*."
        )
    return SPLIT_NAMES[name.lower()]


def _read_classes(
    folder: pathlib.Path,
    root: pathlib.Path,
    masks: pathlib.Path | None,
    left_out: Collection[pathlib.Path],
    others: list[pathlib.Path],
) -> list[raw_dataset.Item]:
    """The images of the classes; files with other endings are added to `others`."""
    items = []
    for class_folder in _entries(folder, left_out):
        if not class_folder.is_dir():
            raise dataset.DataError(
                f"{class_folder} is outside of the class folders. Move or delete it; of annotations, give it by"
                " --annotations. The class of an image is its folder, or is in a list (--dataset=csv)."
            )
        known = _find_masks(_find(masks, class_folder.relative_to(root))) if masks else {}
        paths, not_read = [], []
        for path in _entries(class_folder, left_out):
            (paths if path.is_dir() or image_endings.is_image(path) else not_read).append(path)
        others += not_read
        if not paths:
            reason = f" ({image_endings.describe(image_endings.count(not_read))})" if not_read else ""
            raise dataset.DataError(f"{class_folder} holds no images{reason}. Add some, or delete the folder.")
        images_by_stem = {}
        for path in paths:
            if path.is_dir():
                raise dataset.DataError(f"{path} is a folder inside that of a class. {_LAYOUTS}")
            mask = known.get(composed(path.stem))
            first = images_by_stem.setdefault(composed(path.stem), path)
            if mask and first != path:
                raise dataset.DataError(f"{first} and {path} are images of one mask, {mask}. Rename or delete one.")
            items.append(
                raw_dataset.Item(
                    composed(path.relative_to(root).as_posix()),
                    composed(class_folder.name),
                    path,
                    mask=mask,
                )
            )
    return items


def composed(name: str) -> str:
    """A name in one of the two ways to write accents in Unicode; macOS and its archives use the other."""
    return unicodedata.normalize("NFC", name)


def _find(folder: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    """The path below a folder, whichever way its accents are written."""
    for part in place.parts:
        entries = folder.iterdir() if folder.is_dir() else ()
        folder = next((path for path in entries if composed(path.name) == composed(part)), folder / part)
    return folder


def _find_masks(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The masks in a folder, by name without ending."""
    masks = {}
    for path in _entries(folder) if folder.is_dir() else ():
        name = composed(path.stem)
        if name in masks:
            raise dataset.DataError(f"{masks[name]} and {path} are masks of one image. Keep one.")
        masks[name] = path
    return masks


def _choose_test(items: list[raw_dataset.Item], *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    class_names, labels = np.unique([item.class_name for item in items], return_inverse=True)
    for label, name in enumerate(class_names.tolist()):
        if np.count_nonzero(labels == label) < 3:
            raise dataset.DataError(f"The class {name!r} needs at least 3 images: to train, to validate and to test.")
    return splits_lib.choose_validation(labels, share=share, seed=seed)
