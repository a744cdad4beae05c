"""The summary table of a prepared dataset."""

from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from minmax_jax.base.paths import local_path
from minmax_jax.data import dataset, load
from minmax_jax.data.importing import problems

# Shares of foreground: of one mask, and of all on average. Objects rarely fill their image.
_FULL, _SUSPICIOUS = 0.99, 0.6
_ADVICE = "Look at them; of masks as images, --foreground gives the values of the foreground, such as '>127' or '1'."


class MaskFacts(NamedTuple):
    """What the summary counts of an image beyond its class and its size.

    Attributes:
        foreground: share of its mask's pixels; None without a mask.
        num_objects: that are numbered in its mask.
        num_boxes: around its objects.
    """

    foreground: float | None
    num_objects: int
    num_boxes: int


def describe(data_dir: str, name: str, masks: Mapping[str, Sequence[MaskFacts]] | None = None) -> str:
    """A table of a prepared dataset: images, masks, boxes, sizes, foreground share and classes of each split.

    Lines below it count objects, masks that are empty or full, and images that were left out.

    Args:
        data_dir: folder with prepared datasets.
        name: of the dataset.
        masks: of each split, in the order of its names; by default they are read.
    """
    objects, empty, full, mean = {}, {}, {}, {}
    splits = load.read_splits(data_dir, name)
    lines = [
        f"{'split':<10}{'images':>8}{'classes':>9}{'with mask':>11}{'with box':>10}"
        f"  {'sizes (pixels)':<22}{'foreground':>10}  images per class"
    ]
    for split_name, split in splits.items():
        minimum, maximum = split.sizes.min(axis=0), split.sizes.max(axis=0)
        sizes = f"{minimum[0]}x{minimum[1]} to {maximum[0]}x{maximum[1]}"
        facts = masks[split_name] if masks else [_read(split, index) for index in range(len(split))]
        shares = [
            found.foreground
            for found, has_region in zip(facts, split.has_region.tolist(), strict=True)
            if has_region and found.foreground is not None
        ]
        empty[split_name] = shares.count(0)
        full[split_name] = sum(share > _FULL for share in shares)
        mean[split_name] = math.fsum(shares) / len(shares) if shares else 0
        objects[split_name] = sum(found.num_objects for found in facts)
        with_box = sum(found.num_boxes > 0 for found in facts)
        foreground = f"{100 * mean[split_name]:.1f}%" if shares else "-"
        counts = np.bincount(split.labels, minlength=len(split.class_names))
        lines.append(
            f"{split_name:<10}{len(split):>8}{np.count_nonzero(counts):>9}{len(shares):>11}{with_box:>10}"
            f"  {sizes:<22}{foreground:>10}  {_describe_counts(counts, split.class_names)}"
        )
    first = next(iter(splits.values()))
    if first.microns_per_pixel:
        lines.append(f"{first.microns_per_pixel:.4g} microns a pixel.")
    if first.background_classes:
        lines.append(f"Classes without a region: {', '.join(first.background_classes)}.")
    if any(objects.values()):
        lines.append(f"Annotated instances: {_describe_splits(objects)}.")
    if any(empty.values()):
        lines.append(f"Masks without any foreground: {_describe_splits(empty)}.")
    if any(full.values()):
        lines.append(f"Masks with nearly nothing but foreground: {_describe_splits(full)}. {_ADVICE}")
    elif max(mean.values()) > _SUSPICIOUS:
        lines.append(f"Most of the pixels are foreground: are the masks inverted? {_ADVICE}")
    folder = local_path("data_dir", data_dir) / name / load.VERSION
    if skipped := problems.read(folder):
        lines.append(f"Left out: {problems.summary(skipped)}; see {folder / problems.LIST}.")
    return "\n".join(lines)


def _read(split: dataset.Split, index: int) -> MaskFacts:
    mask, instances = split.read_mask(index), split.read_instances(index)
    return MaskFacts(
        None if mask is None else float(mask.mean()),
        0 if instances is None else int(instances.max()),
        len(split.read_boxes(index)),
    )


def _describe_splits(counts: dict[str, int]) -> str:
    return ", ".join(f"{split_name} {count}" for split_name, count in counts.items() if count)


def _describe_counts(counts: np.ndarray, class_names: tuple[str, ...]) -> str:
    if len(counts) <= 5:
        return ", ".join(f"{class_name} {count}" for class_name, count in zip(class_names, counts))
    return f"{counts.min()} to {counts.max()}"
