"""CUB5: five species of CUB-200-2011, 120 training, 30 validation and 145 test images.

    python -m experiments.train --config=configs/cub5.py --config.data.dir=OUT --workdir=runs/cub5

The recipe of configs/cub.py.
"""

from minmax_jax.configs import cub
import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The published recipe."""
    config = cub.get_config(variant)
    config.data.dataset = "cub5"
    return config
