"""temp"""

import numpy as np

from minmax_jax.data.pipeline import _pad, crop_back  # noqa


def pad(image):
    return _pad(image, -(-np.array(image.shape[:2]) // 32) * 32)
