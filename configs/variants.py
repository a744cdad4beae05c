"""Variants, as in `--config=FILE:VARIANT`: changes to a configuration, separated by commas.

Every configuration has `erasing=R`, and `parity`: what the published implementation computes where this library
differs on purpose, see docs/parity.md.
"""

from collections.abc import Callable

import ml_collections

Variant = Callable[[ml_collections.ConfigDict], None]


def apply(config: ml_collections.ConfigDict, variant: str, known: dict[str, Variant]) -> ml_collections.ConfigDict:
    """Applies named changes, and those that every configuration has.

    Args:
        config: is changed.
        variant: names, separated by commas; "" changes nothing.
        known: the changes that this configuration has by name.

    Returns:
        The configuration.

    Raises:
        ValueError: for an unknown name.
    """
    # Recipes first, whatever the order: each would undo what others change.
    names = sorted(filter(None, variant.split(",")), key=lambda name: name not in known)
    known = known | {"parity": _use_parity}
    for name in names:
        if name in known:
            known[name](config)
        elif name.startswith("erasing=") and name.removeprefix("erasing=").isdigit():
            config.erasing.num_erasures = int(name.removeprefix("erasing="))
        else:
            listed = ", ".join([*known, "erasing=R"])
            raise ValueError(f"The variant {name!r} is unknown; there are: {listed}.")
    return config


def use_small_trunk(config: ml_collections.ConfigDict) -> None:
    """For training from random weights on two cores: three blocks, output stride 8, AdamW, no erasing, cached images.

    With mask.alignment=features, which gives better masks: see docs/notes/glas.md.
    """
    config.data.cache_gib = 1.0
    config.model.trunk = "resnet18"
    config.model.resnet.width = 24
    config.model.resnet.stage_sizes = (1, 1, 1)
    config.model.resnet.stage_strides = (1, 2, 1)
    config.model.k_max = 0.3
    config.model.dropout = 0.0
    config.mask.alignment = "features"
    config.erasing.num_erasures = 0
    config.optimizer.name = "adamw"
    config.learning_rate.schedule = "cosine"
    config.learning_rate.peak = 2e-3
    config.learning_rate.floor = 0.0
    config.train.average_decay = 0.99
    config.evaluation.batch_size = 8


def use_imagenet(config: ml_collections.ConfigDict) -> None:
    """For photographs on two cores: EfficientNet-Lite0 from ImageNet, output stride 16, AdamW, no erasing.

    Trunks keep the statistics of ImageNet and learn at a fifteenth of the heads' rate. The classifier has a trunk of
    its own, so that its terms do not blur the class maps, and reads images of three quarters of the size. A second
    stage refines the masks. How these were chosen: docs/notes/flowers17.md.
    """
    config.data.cache_gib = 1.0
    config.data.min_side = 0
    config.data.max_side = 256
    config.data.crop_size = 224
    config.model.trunk = "efficientnet_lite0"
    config.model.pretrained = "imagenet"
    config.model.output_stride = 16
    config.model.frozen_norm = True
    config.model.separate_trunks = True
    config.model.classifier_scale = 0.75
    config.model.k_max = 0.3
    config.model.dropout = 0.0
    config.mask.alignment = "features"
    config.erasing.num_erasures = 0
    config.optimizer.name = "adamw"
    config.optimizer.trunk_factor = 0.067
    config.learning_rate.schedule = "cosine"
    config.learning_rate.peak = 3e-3
    config.learning_rate.floor = 0.0
    config.train.epochs = 6
    config.evaluation.batch_size = 8
    config.evaluation.flips = True
    config.refine.enabled = True


def use_fast(config: ml_collections.ConfigDict) -> None:
    """0.63 of the time of `use_imagenet`, worse masks: layers up to output stride 8 keep the weights of ImageNet."""
    config.model.frozen_stride = 8
    config.train.epochs = 4


def _use_parity(config: ml_collections.ConfigDict) -> None:
    config.model.shared_statistics = True
    config.model.unbiased_variance = True
    config.model.dropout = 0.0  # not as published: no two implementations draw alike
    config.mask.normalization = "batch"
    config.mask.alignment = "corners"
    config.evaluation.flips = False
