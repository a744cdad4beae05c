"""Large images are cut into tiles when they are prepared; each tile becomes an image."""

from collections.abc import Iterator
import dataclasses
import functools
import itertools

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset, image_files, slide_windows, slides, splits
from minmax_jax.data.importing import magnification, problems, raw_dataset, region_masks, slide_masks

# Saturation of HSV, 0 to 1: glass, white and grey are below it; 89 % of the pixels of GlaS, all tissue, are above it.
_MIN_SATURATION = 0.07
# Share of a box, or of the tile where that is smaller: a tile that shows less has no box of the object.
_MIN_VISIBLE = 0.25
# Share of each class; the default of `load.load`.
_VALIDATION_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Size, scale and tissue of the tiles.

    Attributes:
        side: of a tile, in pixels; a smaller image is one tile.
        scale: share of full resolution at which images are cut.
        min_tissue: share of a tile's pixels that must be tissue; 0 keeps all tiles.
        microns: side of a tile in microns, which brings all images to one pixel size; 0: all have the same scale.
    """

    side: int
    scale: float = 1.0
    min_tissue: float = 0.1
    microns: float = 0.0

    def scale_of(self, microns_per_pixel: float | None) -> float:
        """The factor by which an image is resized before it is cut."""
        return microns_per_pixel * self.side / self.microns if self.microns else self.scale


def cut(
    raw: raw_dataset.RawDataset,
    tiling: Tiling,
    *,
    seed: int = 0,
    sizes: magnification.Sizes | None = None,
    skip_bad: bool = False,
) -> raw_dataset.RawDataset:
    """The dataset with tiles instead of images; no image has tiles in two splits.

    Args:
        raw: the dataset, its files in folders, not in archives.
        tiling: options.
        seed: of the choice of validation images, 20 % of each training class, where none are given.
        sizes: microns a pixel of the images; by default they are read.
        skip_bad: whether images of unknown size are left out where it must be known, instead of refused.

    Raises:
        OptionError: for a number out of range.
        DataError: if a class has one training image, and no validation images are given; listing the images of unknown
            size.
    """
    if tiling.side < dataset.MIN_SIDE:
        raise OptionError(f"tile_size={tiling.side} must be 0 or at least {dataset.MIN_SIDE} pixels.")
    if raw.mask_rule.numbers_objects:
        raise OptionError("instances: the numbers of objects are not kept in tiles. Leave it out, or set tile_size=0.")
    if not 0 < tiling.scale <= 1:
        raise OptionError(f"tile_scale={tiling.scale} must be above 0 and at most 1, full resolution.")
    if not 0 <= tiling.min_tissue <= 1:
        raise OptionError(f"min_tissue={tiling.min_tissue} must be from 0, which keeps all tiles, to 1.")
    sizes = magnification.read(raw) if sizes is None else sizes
    raw = _at_one_size(raw, tiling, sizes, skip_bad=skip_bad)
    splits = raw.splits
    if "validation" not in splits:
        splits = {**_split_training(splits["train"], seed), "test": splits["test"]}
    return dataclasses.replace(
        raw,
        splits=splits,
        description=f"{raw.description} Cut: {tiling}.",
        read_records=functools.partial(read_records, tiling=tiling, sizes=sizes),
        images_per_chunk=1,
    )


def _at_one_size(
    raw: raw_dataset.RawDataset, tiling: Tiling, sizes: magnification.Sizes, *, skip_bad: bool
) -> raw_dataset.RawDataset:
    """The dataset with the pixel size of its tiles, without images that cannot be brought to it."""
    if not tiling.microns:
        magnification.warn_of_tiles(sizes, side=tiling.side, scale=tiling.scale)
        common = magnification.common(list(sizes.values()))
        return dataclasses.replace(raw, microns_per_pixel=common / tiling.scale)
    if tiling.scale != 1:
        raise OptionError(f"tile_scale={tiling.scale} and tile_microns={tiling.microns} both scale images. Give one.")
    microns = tiling.microns / tiling.side
    magnification.check_range("tile_microns / tile_size", microns)
    bad = magnification.find_unknown(raw, sizes)
    if bad and not skip_bad:
        raise dataset.DataError(f"{problems.listing(bad)}\nNothing was prepared. skip_bad leaves these images out.")
    magnification.warn_of_enlarged(sizes, microns, side=tiling.side)
    left_out = {(problem.split, problem.name) for problem in bad}
    splits = {
        split: [item for item in items if (split, item.name) not in left_out] for split, items in raw.splits.items()
    }
    return dataclasses.replace(raw, splits=splits, bad=(*raw.bad, *bad), microns_per_pixel=microns)


def _split_training(items: list[raw_dataset.Item], seed: int) -> dict[str, list[raw_dataset.Item]]:
    class_names, labels = np.unique([item.class_name for item in items], return_inverse=True)
    for name, count in zip(class_names.tolist(), np.bincount(labels)):
        if count < 2:
            raise dataset.DataError(
                f"The class {name!r} has one training image, and one image of each class must validate: no image may"
                " have tiles in two splits. Add images, or name those that validate."
            )
    train, validation = splits.choose_validation(labels, share=_VALIDATION_SHARE, seed=seed)
    return {"train": [items[index] for index in train], "validation": [items[index] for index in validation]}


def read_records(
    item: raw_dataset.Item, raw: raw_dataset.RawDataset, *, tiling: Tiling, sizes: magnification.Sizes | None = None
) -> Iterator[dict]:
    """Yields the records of an image's tiles, in rows, as `raw_dataset.read_record` those of whole images.

    A tile's name is that of the image, "/", and its TOP_LEFT in pixels of full resolution, of a slide with bounds
    counted from there.

    Args:
        item: the image.
        raw: the dataset of the image.
        tiling: side and scale of the tiles, and which are kept.
        sizes: microns per pixel of each image file, for tiles of one magnification; None: unknown for all files.

    Raises:
        DataError: as `raw_dataset.read_record`; if no tile has enough tissue.
    """
    image = slides.open_image(item.image, raw.reading)
    drawing = item.annotation and item.annotation.read(item.image, image.stored_size, image.orientation)
    if drawing and drawing.has_mask:
        mask = slides.LargeImage(image.size, functools.partial(region_masks.draw, drawing))
    else:
        mask = slide_masks.open_mask(item.mask, image, rule=raw.mask_rule) if item.mask else None
    shares = raw_dataset.relative_boxes(item, image.stored_size, image.orientation, drawing=drawing)
    boxes = shares * (image.size * 2)
    scale = tiling.scale_of((sizes or {}).get(item.image))
    windows = grid(_scaled_size(item, image, scale), tiling.side)
    num_kept = 0
    for window in windows:
        size = (window[2] - window[0], window[3] - window[1])
        box = tuple(side / scale for side in window)
        pixels = image.read(box, size) if scale <= 1 else slides.read_enlarged(image, box, size)
        if tissue_share(pixels) < tiling.min_tissue:
            continue
        num_kept += 1
        yield {
            "image": image_files.to_png(pixels),
            **raw_dataset.encode_masks(mask.read(box, size) if mask else None),
            "boxes": cut_boxes(boxes, box),
            "label": item.class_name,
            "name": f"{item.name}/{round(box[0])}_{round(box[1])}",
            "size": np.array(size, np.int32),
            "patient": item.patient,
            "lossy": image.lossy,
        }
    if not num_kept:
        raise dataset.DataError(
            f"{item.image}: none of its {len(windows)} tiles has tissue on {tiling.min_tissue:.0%} of its pixels."
            " Lower min_tissue (0 keeps all), or leave out the image."
        )


def _scaled_size(item: raw_dataset.Item, image: slides.LargeImage, scale: float) -> tuple[int, int]:
    """Height and width in whole pixels of that scale; what is left at the lower and right border is dropped."""
    # 0.29 * 100 is a little less than 29.
    size = tuple(int(side * scale + 1e-6) for side in image.size)
    if min(size) < dataset.MIN_SIDE:
        raise dataset.DataError(
            f"{item.image} has {size} pixels (height, width) at tile_scale={scale:.4g}; each side needs at least"
            f" {dataset.MIN_SIDE}."
        )
    return size


def grid(size: tuple[int, int], side: int) -> list[tuple[int, int, int, int]]:
    """Windows (top, left, bottom, right) of one size that cover an image, in rows.

    The last of each row and column are shifted inwards, so that they end with the image.

    Args:
        size: height and width of the image.
        side: of a window; where the image is smaller, its own.
    """
    height, width = (min(side, length) for length in size)
    starts = ([*range(0, length - side, side), max(length - side, 0)] for length in size)
    return [(top, left, top + height, left + width) for top, left in itertools.product(*starts)]


def tissue_share(pixels: np.ndarray) -> float:
    """Share of the pixels [H, W, 3] uint8 that are tissue: stains have a colour, glass is white or grey.

    A pixel is tissue where its saturation, (max - min) / max of its channels, is at least 0.07.
    """
    # Channel by channel: a reduction over an axis of three takes NumPy ten times as long.
    red, green, blue = np.moveaxis(pixels, -1, 0)
    maximum = np.maximum(np.maximum(red, green), blue)
    minimum = np.minimum(np.minimum(red, green), blue)
    return float(np.mean((maximum > 0) & (maximum - minimum >= np.float32(_MIN_SATURATION) * maximum)))


def cut_boxes(boxes: np.ndarray, window: slide_windows.Box) -> np.ndarray:
    """The visible part of boxes, as shares of a window, [k, 4] float32.

    Boxes of which less than a quarter is visible, and which fill less than a quarter of the window, are left out.

    Args:
        boxes: [K, 4] (top, left, bottom, right) in the pixels that the window is given in.
        window: (top, left, bottom, right).
    """
    top, left, bottom, right = window
    visible = np.clip(boxes, [top, left, top, left], [bottom, right, bottom, right])
    minimum = _MIN_VISIBLE * np.minimum(_area(boxes), (bottom - top) * (right - left))
    shares = (visible - [top, left, top, left]) / ([bottom - top, right - left] * 2)
    return shares[_area(visible) >= minimum].astype(np.float32)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
