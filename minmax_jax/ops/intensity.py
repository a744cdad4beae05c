"""How images are numbers: [-1, 1], so that an erased pixel, 0, is mid grey."""

import jax
import jax.numpy as jnp
import numpy as np


def normalize(images: jax.Array) -> jax.Array:
    """uint8 images [0, 255] to float32 [-1, 1]; floating-point ones, at least float32, are taken to be scaled already.

    Raises:
        TypeError: for any other dtype.
    """
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 127.5 - 1
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images are {images.dtype}; give uint8 in [0, 255] or floating point in [-1, 1].")
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] to uint8 in [0, 255], rounded."""
    return np.round((np.asarray(images, np.float32) + 1) * 127.5).clip(0, 255).astype(np.uint8)
