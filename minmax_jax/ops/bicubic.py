"""Bicubic interpolation as PyTorch computes it: cubic convolution (Keys, IEEE TASSP 1981), pixels as unit squares."""

import numpy as np

# PyTorch has one value for each form; the second is Pillow's.
_SHARPNESS, _SHARPNESS_ANTIALIASED = -0.75, -0.5


def interpolation_matrix(
    size_in: int, size_out: int, *, ratio: float | None = None, antialias: bool = False
) -> np.ndarray:
    """The [size_out, size_in] float64 weights; output i reads around the input (i + 0.5) ratio - 0.5.

    Args:
        size_in: number of inputs.
        size_out: number of outputs.
        ratio: inputs for each output; by default size_in / size_out.
        antialias: where outputs are fewer, widens the kernel to the outputs' distance, and leaves out what lies beyond
            the border; otherwise the kernel spans four inputs, and the border's input is repeated beyond it.
    """
    ratio = size_in / size_out if ratio is None else ratio
    positions = (np.arange(size_out)[:, None] + 0.5) * ratio - 0.5
    if antialias:
        weights = _kernel((np.arange(size_in) - positions) / max(ratio, 1.0), _SHARPNESS_ANTIALIASED)
        return weights / weights.sum(axis=1, keepdims=True)
    inputs = np.floor(positions).astype(int) + np.arange(-1, 3)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)[:, None]
    np.add.at(matrix, (rows, np.clip(inputs, 0, size_in - 1)), _kernel(inputs - positions, _SHARPNESS))
    return matrix


def _kernel(distances: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(distances)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
