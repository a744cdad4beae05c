"""Your own images, prepared by a name.

    python -m experiments.prepare_data --dataset=image_folder --name=NAME --source=DIR --data_dir=OUT
    python -m experiments.train --config=configs/custom.py:NAME --config.data.dir=OUT --workdir=runs/NAME

docs/data.md describes the folders and files that can be prepared. Classes and sizes come from there. The default is the
published recipe, for a GPU; the variant `:NAME,cpu` is for two cores, and `:NAME,erasing=R` sets the erasures.
"""

from minmax_jax.configs import common, variants
import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The published recipe for photographs, with crops that suit the images."""
    config = common.get_config()
    config.data.dataset = "custom"
    config.data.name, _, changes = variant.partition(",")
    config.data.max_side = 500
    config.data.crop_size = 0
    config.model.dropout = 0.85
    config.erasing.num_erasures = 4
    return variants.apply(config, changes, {"cpu": _use_cpu})


def _use_cpu(config: ml_collections.ConfigDict) -> None:
    """From scratch, on small images."""
    variants.use_small_trunk(config)
    config.data.max_side = 128
    config.learning_rate.warmup_epochs = 1
    config.train.epochs = 20
