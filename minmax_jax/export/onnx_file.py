"""ONNX files, written by `onnx_conversion` and run by onnxruntime."""

from collections.abc import Callable, Mapping
import importlib.util
import os
import pathlib

import jax
import numpy as np

from minmax_jax import ops
from minmax_jax.base.errors import UserError
from minmax_jax.export import stablehlo
from minmax_jax.export.networks import Network, Size

INPUT = "images"
_PACKAGES = ("onnx", "onnxruntime", "yaml")
_ERROR = 3  # severity of messages: not those that the machine has no GPU


def check_installed() -> None:
    """Raises UserError where a package is missing."""
    if not all(map(importlib.util.find_spec, _PACKAGES)):
        raise UserError("format='onnx' needs other packages: pip install 'minmax_jax[onnx]'.")


def write(path: pathlib.Path, network: Network, size: Size, metadata: Mapping[str, str]) -> None:
    """Writes a network with its weights, for any number of images.

    Args:
        path: of the file.
        network: of `networks.create`.
        size: (H, W) of the images; None: any.
        metadata: text that is kept in the file, by name.

    Raises:
        UnsupportedError: for an operation that has no form in ONNX here.
    """
    from minmax_jax.export.onnx_conversion import interpreter

    order: list[str] = []

    def apply(images):
        results = network(images)
        order.extend(results)  # JAX sorts them by name
        return results

    with ops.portable():
        traced = jax.jit(apply).trace(stablehlo.images_of(size))
    names = sorted(traced.out_info)
    model = interpreter.convert(traced.jaxpr, input_name=INPUT, output_names=names, metadata=metadata)
    model.graph.output.sort(key=lambda output: order.index(output.name))
    path.write_bytes(model.SerializeToString())


def read(path: pathlib.Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The function in a file."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERROR)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1  # its own choice binds threads to cores that it may not use
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {INPUT: images})))
