"""StableHLO files, written and read by `jax.export`."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import datetime
import importlib.util
import pathlib
import re
from typing import Any

import jax
from jax import export
import numpy as np

from minmax_jax import ops
from minmax_jax.base.errors import UserError
from minmax_jax.export.networks import MAX_SIDE, MIN_SIDE, Network, Size

PLATFORMS = ("cpu", "cuda", "tpu")
_GUARANTEED = datetime.timedelta(days=182)
# The oldest JAX that ran a file, by the one that wrote it, where this was tried (docs/export.md). Files are written for
# the StableHLO of four weeks before, so that any JAX reads those of its own release.
_OLDEST_READERS = {"0.10.2": "0.9.2"}


def check_installed() -> None:
    """Raises UserError where the package is missing that `jax.export` writes files with."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("format='stablehlo' needs a package: pip install 'minmax_jax[stablehlo]'.")


def write(path: pathlib.Path, network: Network, size: Size, metadata: Mapping[str, str]) -> None:
    """Writes a network with its weights, for any number of images.

    Args:
        path: of the file.
        network: of `networks.create`.
        size: (H, W) of the images; None: any.
        metadata: has no place in such a file.
    """
    del metadata
    # Without limit, the file names the source files of this machine that each operation comes from.
    with ops.portable(), _without_places():
        exported = export.export(jax.jit(network), platforms=PLATFORMS)(images_of(size))
    path.write_bytes(exported.serialize())


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def images_of(size: Size) -> jax.ShapeDtypeStruct:
    """Images [b, H, W, 3] of any number b, and of any size where that is None."""
    if size is not None:
        return jax.ShapeDtypeStruct(export.symbolic_shape(f"b, {size[0]}, {size[1]}, 3"), np.float32)
    bounds = [f"{side} {sign} {bound}" for side in "hw" for sign, bound in ((">=", MIN_SIDE), ("<=", MAX_SIDE))]
    return jax.ShapeDtypeStruct(export.symbolic_shape("b, h, w, 3", constraints=bounds), np.float32)


def read(path: pathlib.Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The function in a file."""
    program = export.deserialize(bytearray(path.read_bytes()))
    return lambda images: {name: np.asarray(value) for name, value in program.call(images).items()}


def guaranteed_until(written: datetime.date) -> datetime.date:
    """The day up to which releases of JAX read a file, had the JAX that wrote it been released on the day of writing.

    JAX guarantees to read files of releases that are up to six months older.
    """
    return written + _GUARANTEED


def describe(path: pathlib.Path) -> dict[str, str | int]:
    """Which JAX reads a file that this JAX wrote: "oldest_jax", "calling_convention" and "stablehlo", its version."""
    content = path.read_bytes()
    version = re.search(rb"StableHLO_v([0-9.]+)", content)  # of the bytecode's producer
    return {
        "oldest_jax": _OLDEST_READERS.get(jax.__version__, jax.__version__),
        "calling_convention": export.deserialize(bytearray(content)).calling_convention_version,
        "stablehlo": version[1].decode() if version else "unknown",
    }


def explain(written: Mapping[str, Any]) -> str:
    """The keys of `describe` and "guaranteed_until", in words."""
    release = f"six months after the release of jax {jax.__version__}"
    return (
        f"read by jax {written['oldest_jax']} and newer (written by jax {jax.__version__}: StableHLO"
        f" {written['stablehlo']}, calling convention {written['calling_convention']}); JAX may refuse the file after"
        f" {written['guaranteed_until']}, or earlier: {release}, which wrote it"
    )
