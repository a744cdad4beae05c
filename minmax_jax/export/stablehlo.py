"""StableHLO files, written and read by `jax.export`."""

from collections.abc import Callable, Mapping
import datetime
import importlib.util
import pathlib

import jax
from jax import export
import numpy as np

from minmax_jax import ops
from minmax_jax.errors import UserError
from minmax_jax.export.networks import Network

PLATFORMS = ("cpu", "cuda", "tpu")
_GUARANTEED = datetime.timedelta(days=182)


def check_installed() -> None:
    """Raises UserError where the package is missing that `jax.export` writes files with."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("format='stablehlo' needs a package: pip install 'minmax_jax[stablehlo]'.")


def write(path: pathlib.Path, network: Network, size: tuple[int, int], metadata: Mapping[str, str]) -> None:
    """Writes a network with its weights, for any number of images of one size.

    Args:
        path: of the file.
        network: of `networks.create`.
        size: (H, W) of the images.
        metadata: has no place in such a file.
    """
    del metadata
    with ops.portable():
        exported = export.export(jax.jit(network), platforms=PLATFORMS)(images_of(size))
    path.write_bytes(exported.serialize())


def images_of(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """Images [b, H, W, 3] of any number b."""
    return jax.ShapeDtypeStruct(export.symbolic_shape(f"b, {size[0]}, {size[1]}, 3"), np.float32)


def read(path: pathlib.Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The function in a file."""
    program = export.deserialize(bytearray(path.read_bytes()))
    return lambda images: {name: np.asarray(value) for name, value in program.call(images).items()}


def guaranteed_until(written: datetime.date) -> datetime.date:
    """The day up to which releases of JAX read a file, had the JAX that wrote it been released on the day of writing.

    JAX guarantees to read files of releases that are up to six months older.
    """
    return written + _GUARANTEED


def explain(guaranteed_until: str) -> str:
    """The day of `guaranteed_until` in words."""
    release = f"six months after the release of jax {jax.__version__}"
    return f"JAX may refuse the file after {guaranteed_until}, or earlier: {release}, which wrote it"
