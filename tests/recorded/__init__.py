"""Weights and images of recorded and of made-up cases, drawn again wherever they are needed.

Each tensor has a stream of NumPy's frozen `RandomState` of its own, seeded by its name, so no file holds it.
"""

import zlib

import numpy as np


def draw_images(salt: str, batch: int, size: tuple[int, int]) -> np.ndarray:
    """[B, H, W, 3] uint8 images of flat blocks of 8 x 8 pixels, under noise."""
    height, width = size
    stream = _stream(salt + "images")
    blocks = stream.randint(0, 192, (batch, -(-height // 8), -(-width // 8), 3), np.uint8)
    noise = stream.randint(0, 64, (batch, height, width, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width] + noise


def draw_state_dict(layout: list, salt: str, *, sigma: float, omega: float) -> dict[str, np.ndarray]:
    """A float32 state dict of the published layout; layout: [[name, shape], ...], kernels OIHW."""
    constants = {"sigma": np.float32([sigma]), "w": np.float32([omega])}
    return {name: constants[name] if name in constants else _draw_tensor(name, shape, salt) for name, shape in layout}


def _draw_tensor(name: str, shape: list[int], salt: str) -> np.ndarray:
    """He's scale for kernels; about 1 for the scales and variances of batch norm, about 0 for the rest."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    noise = _stream(salt + name).standard_normal(shape).astype(np.float32)
    if len(shape) == 4:
        return noise * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if name.endswith("running_var"):
        return 1 + np.abs(noise) / np.float32(10)
    return name.endswith(".weight") + noise / np.float32(10)


def _stream(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))
