"""temp"""

import dataclasses

import numpy as np

from minmax_jax.data import dataset, stains


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    stain_normalization: str = "none"
    scale: float = 1.0
    min_side: int = 0
    max_side: int = 0

    def __call__(self, image):
        if self.stain_normalization == "macenko":
            image = stains.normalize_stains(image)
        s = dataset.Split(
            ("x",), np.zeros(1, np.int32), ("a",), np.array([image.shape[:2]]), lambda i: image, lambda i: None
        )
        return dataset.resize_images(s, scale=self.scale, min_side=self.min_side, max_side=self.max_side).read_image(0)
