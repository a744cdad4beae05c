"""From options to data: the three splits, and training batches."""

from collections.abc import Iterator
import dataclasses
import logging
from typing import Any

import jax
import numpy as np

from minmax_jax.base import errors
from minmax_jax.data import dataset, load, pipeline, pixel_size, synthetic
from minmax_jax.runs.building.groups import DataOptions
from minmax_jax.runs.building.options import RunOptions

logger = logging.getLogger(__name__)
_MAX_CROP = 480  # as published
_MAX_IMBALANCE = 5  # images of the largest class for each of the smallest, without a warning


# In the order of the published labels.
CUB5_CLASS_NAMES = (
    "019.Gray_Catbird",
    "171.Myrtle_Warbler",
    "108.White_necked_Raven",
    "099.Ovenbird",
    "178.Swainson_Warbler",
)
# Datasets with an importer of their own; all others are a user's images.
PUBLISHED = ("glas", "cub", "oxford_flowers")


def create_splits(data: DataOptions) -> dict[str, dataset.Split]:
    """The splits "train", "validation" and "test", preprocessed and sampled as the options say.

    Raises:
        UserError: for a dataset that is not prepared, or a split that is empty or has too few images.
    """
    counts = {"train": data.num_train, "validation": data.num_validation, "test": data.num_test}
    if data.dataset == "synthetic":
        for name, count in counts.items():
            if count < 1:
                raise errors.OptionError(f"config.data.num_{name}={count} must be at least 1 for built-in images.")
        splits = {name: synthetic.load(name, count, config=data.synthetic) for name, count in counts.items()}
    else:
        splits = _load_prepared(data)
        _compare_pixel_sizes(data.microns_per_pixel, splits["train"].microns_per_pixel)
    splits = {name: _declare_background(name, split, data) for name, split in splits.items()}
    return {name: _prepare(name, split, counts[name], data) for name, split in splits.items()}


def _declare_background(name: str, split: dataset.Split, data: DataOptions) -> dataset.Split:
    """The split with the background classes of the configuration, if it names any, instead of its own."""
    with errors.naming("config.data."):
        names = dataset.check_background(data.background_classes or split.background_classes, split.class_names)
    declared = dataclasses.replace(split, background_classes=names)
    if data.background_classes and name != "train":  # a preparation refuses such images; training reads no mask
        _warn_of_regions(name, declared)
    return declared


def _warn_of_regions(name: str, split: dataset.Split) -> None:
    """Warns where images of classes without a region have a foreground, which counts nowhere."""
    images = np.flatnonzero(~split.has_region).tolist()
    found = [index for index in images if np.any(split.read_mask(index)) or len(split.read_boxes(index))]
    if found:
        logger.warning(
            "config.data.background_classes: %d of %d %s images of %s, such as %s, have a foreground or a box, which"
            " count in no metric. Is this a class without a region?",
            *(len(found), len(images), name, ", ".join(split.background_classes), split.names[found[0]]),
        )


def _load_prepared(data: DataOptions) -> dict[str, dataset.Split]:
    name = {"cub5": "cub", "custom": data.name}.get(data.dataset, data.dataset)
    try:
        with errors.naming("config.data."):
            return load.load(
                data.dir,
                name,
                class_names=CUB5_CLASS_NAMES if data.dataset == "cub5" else (),
                folds_dir=data.folds,
                validation_share=data.validation_share,
                seed=data.validation_seed,
                split=data.split,
            )
    except load.NotPreparedError as error:
        flags = f"--dataset={name}" if name in PUBLISHED else f"--dataset=image_folder --name={name}"
        raise load.NotPreparedError(
            f"{error} Prepare it with\n"
            f"  minmax-jax prepare-data {flags} --source=FOLDER_OR_ARCHIVE --data_dir=DIR\n"
            "(docs/data.md describes other sources) and set --config.data.dir=DIR."
        ) from error


def _compare_pixel_sizes(configured: float, prepared: float) -> None:
    if configured and prepared and not pixel_size.is_same(configured, prepared):
        logger.warning(
            "config.data.microns_per_pixel=%g, but the prepared images have %.4g: the model card gets the former. Leave"
            " it at 0 for the latter.",
            *(configured, prepared),
        )


def _prepare(name: str, split: dataset.Split, count: int, data: DataOptions) -> dataset.Split:
    if count > len(split):
        raise errors.OptionError(
            f"config.data.num_{name}={count} must be at most {len(split)}, the size of the {name} split; 0 takes all."
        )
    if 0 < count < len(split):
        split = dataset.subset(split, dataset.stratified(split.labels, count, seed=data.subset_seed))
    if name == "train":
        with errors.naming("config.data."):
            few = dataset.few_per_class(
                split.labels, fraction=data.train_fraction, count=data.train_per_class, seed=data.subset_seed
            )
        split = dataset.subset(split, few)
        if data.permute_labels:
            labels = np.random.default_rng(data.subset_seed).permutation(split.labels)
            split = dataclasses.replace(split, labels=labels)
    split = dataset.preprocess(split, data.preprocessing)
    return dataset.cache_images(split, max_gib=data.cache_gib) if data.cache_gib else split


def crop_size(data: DataOptions, split: dataset.Split) -> tuple[int, int]:
    """Height and width of training crops; data.crop_size=0 derives them from the images.

    Args:
        data: options of the data.
        split: training images, resized as configured.
    """
    side = data.crop_size or dataset.typical_side(split, max_side=_MAX_CROP)
    return side, side


def warn_of_imbalance(data: DataOptions, split: dataset.Split) -> None:
    """Names the largest and the smallest class of the training images where one has many times those of the other."""
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    largest, smallest = int(np.argmax(counts)), int(np.argmin(np.where(counts, counts, counts.max())))
    if data.balanced or counts[largest] <= _MAX_IMBALANCE * counts[smallest]:
        return
    logger.warning(
        "The classes are imbalanced: %d training images of %r, %d of %r. A model may never name a small class:"
        " --config.data.balanced=True draws all classes equally often, and"
        " --config.evaluation.selection=balanced_error selects the model by the mean over classes.",
        *(counts[largest], split.class_names[largest], counts[smallest], split.class_names[smallest]),
    )


def create_train_batches(
    options: RunOptions, split: dataset.Split, *, first_batch: int = 0
) -> Iterator[dict[str, Any]]:
    """This host's share of the training batches, from the one of that number on.

    Args:
        options: of the run.
        split: the training images.
        first_batch: number of the first batch, from 0: the step that training resumes at.
    """
    data = options.data
    return pipeline.train_batches(
        split,
        batch_size=options.batch_size,
        seed=options.seed,
        augmentation=dataclasses.replace(data.augmentation, size=crop_size(data, split)),
        balanced=data.balanced,
        first_batch=first_batch,
        num_workers=data.num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
