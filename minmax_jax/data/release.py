"""A dataset as it was downloaded: which files it has, and how they become records."""

from collections.abc import Callable, Iterator
import dataclasses
import pathlib
import zipfile

import numpy as np
import tqdm

from minmax_jax.data import dataset, pictures

# A path in a folder, or in a ZIP file: both can be read alike.
Path = pathlib.Path | zipfile.Path


@dataclasses.dataclass(frozen=True)
class Item:
    """One image of a release.

    Attributes:
        name: unique in the release; no slash at its ends.
        class_name: what the image shows.
        image: its file.
        mask: the file that tells its foreground, if there is one.
        boxes: around its objects, (top, left, bottom, right) each, in pixels of the image as stored.
    """

    name: str
    class_name: str
    image: Path
    mask: Path | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Release:
    """What is known of a dataset before its images are read.

    Attributes:
        class_names: of all classes, in the order of their labels.
        splits: the items of each.
        is_foreground: values of a mask's file, [H, W] or [H, W, 3], to [H, W] bool.
        description: of the dataset.
        homepage: where it comes from.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[Item]]
    is_foreground: Callable[[np.ndarray], np.ndarray]
    description: str
    homepage: str = ""

    def __iter__(self) -> Iterator[Item]:
        """All items."""
        return (item for items in self.splits.values() for item in items)


def above(threshold: float) -> Callable[[np.ndarray], np.ndarray]:
    """The rule by which a pixel is foreground where its value, or one of its colour's, is above a threshold."""
    return lambda values: values > threshold if values.ndim == 2 else (values > threshold).any(axis=-1)


def read_record(item: Item, is_foreground: Callable[[np.ndarray], np.ndarray]) -> dict:
    """Reads the files of an item.

    Returns:
        Its record, see `records.features`: the image in the format that it has, the mask as PNG with one bit a pixel.

    Raises:
        DataError: if a file is missing, is no whole image, is too small, or if sizes or boxes do not fit.
    """
    content = _read(item.image)
    picture = pictures.open_picture(content, item.image.name)
    height, width = size = pictures.to_rgb(picture, item.image.name).shape[:2]
    if min(size) < dataset.LEAST_SIDE:
        raise dataset.DataError(
            f"{item.image.name} has {size} pixels (height, width); each side needs at least {dataset.LEAST_SIDE}."
        )
    mask = b""
    if item.mask is not None:
        stored = pictures.open_picture(_read(item.mask), item.mask.name)
        foreground = is_foreground(pictures.read_values(pictures.upright_mask(stored, picture)))
        if foreground.shape != size:
            raise dataset.DataError(
                f"{item.mask.name} has {foreground.shape} pixels (height, width), its image {item.image.name} {size}."
            )
        mask = pictures.to_png(foreground)
    return {
        "image": pictures.compact(content, picture, item.image.name),
        "mask": mask,
        "boxes": _relative_boxes(item, picture),
        "label": item.class_name,
        "name": item.name,
        "size": np.array([height, width], np.int32),
    }


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise dataset.DataError(f"{path.name} is missing in {path.parent}.")
    return path.read_bytes()


def _relative_boxes(item: Item, picture) -> np.ndarray:
    """[K, 4] float32 shares of the upright image; what reaches over its border is cut."""
    boxes = np.array(item.boxes, np.float64).reshape(-1, 4)
    boxes = np.clip(boxes / [picture.height, picture.width, picture.height, picture.width], 0, 1)
    if not (boxes[:, :2] < boxes[:, 2:]).all():
        raise dataset.DataError(
            f"{item.image.name} of {picture.height}x{picture.width} pixels has the boxes {item.boxes} (top, left,"
            " bottom, right), of which at least one holds no pixel of it."
        )
    return pictures.turn_boxes(boxes, pictures.orientation(picture)).astype(np.float32)


def check(release: Release) -> None:
    """Reads everything once, with progress.

    Raises:
        DataError: listing every file that cannot be used, and names that stand twice.
    """
    problems, seen = [], set()
    for item in tqdm.tqdm(list(release), desc="Checking images", unit="image"):
        if item.name in seen:
            problems.append(f"{item.image} would be the second image named {item.name!r}.")
        seen.add(item.name)
        try:
            read_record(item, release.is_foreground)
        except (dataset.DataError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise dataset.DataError(f"{len(problems)} problems:\n  " + "\n  ".join(problems))
