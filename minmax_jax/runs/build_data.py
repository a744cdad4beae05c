"""What a configuration trains and tests on: its splits, and the batches of the first. Fields: configs/common.py."""

import grain
import jax
import ml_collections

from minmax_jax import errors
from minmax_jax.data import dataset, pipeline, stains, synthetic, transforms

_GREATEST_CROP = 480  # as published


def create_splits(config: ml_collections.ConfigDict) -> dict[str, dataset.Split]:
    """The splits "train", "validation" and "test", normalised and resized as configured.

    Raises:
        ValueError: for a dataset that is not prepared, or a split that is empty or has too few images.
    """
    data = config.data
    counts = {"train": data.num_train, "validation": data.num_validation, "test": data.num_test}
    if data.dataset == "synthetic":
        with errors.naming("config.data.synthetic."):
            options = synthetic.SyntheticConfig(**data.synthetic)
        splits = {name: synthetic.load(name, count, config=options) for name, count in counts.items()}
    else:
        # TFDS takes a second to import: only what reads its files waits for it.
        from minmax_jax.data import load
        from minmax_jax.data.importing import cub

        name = {"cub5": "cub", "custom": data.name}.get(data.dataset, data.dataset)
        splits = load.load(
            data.dir,
            name,
            class_names=cub.CUB5_CLASS_NAMES if data.dataset == "cub5" else (),
            folds_dir=data.folds,
            validation_share=data.validation_share,
            seed=data.validation_seed,
        )
    return {name: _prepared(name, split, counts[name], data) for name, split in splits.items()}


def _prepared(name: str, split: dataset.Split, count: int, data: ml_collections.ConfigDict) -> dataset.Split:
    if count > len(split):
        raise ValueError(f"config.data.num_{name}={count}: the {name} split has {len(split)} images. 0 takes all.")
    if 0 < count < len(split):
        split = dataset.subset(split, dataset.stratified(split.labels, count, seed=data.subset_seed))
    if name == "train":
        with errors.naming("config.data."):
            few = dataset.few_per_class(
                split.labels, fraction=data.train_fraction, count=data.train_per_class, seed=data.subset_seed
            )
        split = dataset.subset(split, few)
    if data.stain_normalization == "macenko":
        split = dataset.map_images(split, stains.normalize_stains)
    split = dataset.resize_images(split, scale=data.scale, min_side=data.min_side, max_side=data.max_side)
    return dataset.cache_images(split, max_gib=data.cache_gib) if data.cache_gib else split


def crop_size(data: ml_collections.ConfigDict, split: dataset.Split) -> tuple[int, int]:
    """Height and width of training crops; where the configuration leaves it open, they suit the images.

    Args:
        data: the configuration's group.
        split: training images, resized as configured.
    """
    side = data.crop_size or dataset.typical_side(split, at_most=_GREATEST_CROP)
    return side, side


def create_train_batches(config: ml_collections.ConfigDict, split: dataset.Split) -> grain.DatasetIterator:
    """This host's share of the training batches."""
    return pipeline.train_batches(
        split,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation=create_augmentation(config.data, split),
        num_workers=config.data.num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def create_augmentation(data: ml_collections.ConfigDict, split: dataset.Split) -> transforms.Augmentation:
    """What is done to each training image; arguments as of `crop_size`."""
    names = ("padding", "flip_horizontal", "flip_vertical", "stain_augmentation")
    names += ("brightness", "contrast", "saturation", "hue")
    return transforms.Augmentation(crop_size(data, split), **{name: data[name] for name in names})
