"""Random masks: regions that have nothing to do with the image, to train a classifier with.

A classifier that only ever sees what a localizer selects can read the class from the selection itself. Seeing random
regions as well, it learns what a region shows and what it does not. Source: REAL-X (Jethani et al., AISTATS 2021),
which draws each feature by itself; pixels are drawn together here, so that regions are as smooth as the localizer's.
"""

import jax
import jax.numpy as jnp

from minmax_jax.ops import resize

AREAS = (0.05, 0.95)  # minimum and maximum share of an image above 0.5
_CELLS = 4  # along each side; a blob is about as large as a cell


def random_masks(
    keys: jax.Array, size: tuple[int, int], *, omega: float = 8.0, dtype: jnp.dtype = jnp.float32
) -> jax.Array:
    """sigmoid(omega (x - t)): x a smooth random map in [0, 1], t such that the share of x > t is uniform in `AREAS`.

    Args:
        keys: [B] one for each image, on which its mask depends alone.
        size: (H, W) of the images.
        omega: steepness, as of the localizer's masks.
        dtype: of the masks.

    Returns:
        [B, H, W, 1] masks in (0, 1).

    Example:
        >>> import jax
        >>> from minmax_jax.minmax import random_masks
        >>> draw = jax.jit(random_masks.random_masks, static_argnames="size")
        >>> masks = draw(jax.random.split(jax.random.key(0), 2), size=(32, 32))
        >>> masks.shape, bool(((masks > 0) & (masks < 1)).all())
        ((2, 32, 32, 1), True)
    """

    def draw(key):
        noise_key, area_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (_CELLS + 1, _CELLS + 1, 1), dtype)
        return noise, jax.random.uniform(area_key, (), dtype, *AREAS)

    noise, areas = jax.vmap(draw)(keys)
    maps = resize.resize_bilinear(noise, size)
    minimum, maximum = (reduce(maps, axis=(1, 2, 3), keepdims=True) for reduce in (jnp.min, jnp.max))
    maps = (maps - minimum) / (maximum - minimum)
    thresholds = jax.vmap(jnp.quantile)(maps, 1 - areas)
    return jax.nn.sigmoid(omega * (maps - thresholds[:, None, None, None]))
