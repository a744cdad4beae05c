"""Oxford Flowers 102: 1020 training, 1020 validation and 6149 test images of 102 species.

    python -m experiments.train --config=configs/oxford.py --config.data.dir=OUT --workdir=runs/oxford

The published recipe. It starts from ImageNet weights (--config.model.pretrained=resnet101-imagenet.pth, see
minmax_jax/interop) and wants a GPU. Variants: `:cpu` (EfficientNet-Lite0 from ImageNet, two cores; not measured on the
official data yet), `:erasing=R`, `:parity`.
"""

from minmax_jax.configs import common, variants
import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The published recipe: ResNet-101, small side at least 500, crops of 480 pixels, 400 epochs, 4 erasures."""
    config = common.get_config()
    config.data.dataset = "oxford_flowers"
    config.data.min_side = 500
    config.model.dropout = 0.85
    config.erasing.num_erasures = 4
    return variants.apply(config, variant, {"cpu": variants.use_imagenet})
