"""CUB-200-2011: birds of 200 species, 4794 training, 1200 validation and 5794 test images.

    python -m experiments.train --config=configs/cub.py --config.data.dir=OUT --workdir=runs/cub

The published recipe; the number of epochs is not published, 400 is that of the other datasets. It starts from
ImageNet weights (--config.model.pretrained=resnet101-imagenet.pth, see minmax_jax/interop) and wants a GPU. Variants:
`:cpu` (EfficientNet-Lite0 from ImageNet, two cores; not measured on the official data yet), `:erasing=R`, `:parity`.
"""

from minmax_jax.configs import common, variants
import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The published recipe: ResNet-101, small side at least 500, crops of 480 pixels, 4 erasures."""
    config = common.get_config()
    config.data.dataset = "cub"
    config.data.min_side = 500
    config.model.dropout = 0.85
    config.erasing.num_erasures = 4
    return variants.apply(config, variant, {"cpu": variants.use_imagenet})
