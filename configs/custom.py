"""Your own images, prepared by a name.

    python -m experiments.prepare_data --dataset=image_folder --name=NAME --source=DIR --data_dir=OUT
    python -m experiments.train --config=configs/custom.py:NAME --config.data.dir=OUT --workdir=runs/NAME

docs/data.md tells which folders and files can be prepared. Classes and sizes come from there. The default is the
published recipe, for a GPU; the variant `:NAME,cpu` is for two cores, and `:NAME,erasing=R` sets the erasures.
"""

import ml_collections

from configs import common, variants


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
    """From scratch, on small images, with a trunk of three blocks and output stride 8."""
    config.data.max_side = 128
    config.data.cache = True
    config.model.trunk = "resnet18"
    config.model.width = 24
    config.model.stage_sizes = (1, 1, 1)
    config.model.stage_strides = (1, 2, 1)
    config.model.k_max = 0.3
    config.model.dropout = 0.0
    config.erasing.num_erasures = 0
    config.optimizer.name = "adamw"
    config.learning_rate.schedule = "cosine"
    config.learning_rate.peak = 2e-3
    config.learning_rate.floor = 0.0
    config.learning_rate.warmup_epochs = 1
    config.train.epochs = 20
    config.train.average_decay = 0.99
    config.evaluation.batch_size = 8
