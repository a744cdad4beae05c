"""Prepared datasets, parted into images that train, validate and test."""

import functools

from minmax_jax.data import dataset, splits
from minmax_jax.data.importing import records


def load(
    data_dir: str,
    name: str,
    *,
    class_names: tuple[str, ...] = (),
    folds_dir: str = "",
    validation_share: float = 0.2,
    seed: int = 0,
) -> dict[str, dataset.Split]:
    """A prepared dataset's splits "train", "validation" and "test".

    Args:
        data_dir: what `prepare_data` wrote.
        name: of the dataset.
        class_names: the classes to take; none means all.
        folds_dir: folder of published split files; without it the released splits are taken, and where these have no
            validation images, a share of each training class validates.
        validation_share: that share, rounded up; 0.2 gives the published sizes of GlaS, CUB and CUB5.
        seed: of that choice.

    Raises:
        DataError: if the dataset was not prepared.
        ValueError: if the split files do not fit it.
    """
    released = records.read_splits(data_dir, name)
    if class_names:
        released = {split: dataset.only_classes(part, class_names) for split, part in released.items()}
    if folds_dir:
        return splits.read_folds(folds_dir, functools.reduce(dataset.concatenate, released.values()))
    if "validation" in released:
        return released
    train, validation = splits.choose_validation(released["train"].labels, share=validation_share, seed=seed)
    return {
        "train": dataset.subset(released["train"], train),
        "validation": dataset.subset(released["train"], validation),
        "test": released["test"],
    }
