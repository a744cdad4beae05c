"""Converts a file of weights to safetensors, which opens without PyTorch and cannot run code.

    python -m experiments.convert_weights --input=FILE --output=OUT.safetensors

FILE is .pth, .pt, .tar, .npz or .safetensors. Names of tensors stay as they are, less the prefix `module.`;
floating-point ones are written as float32. Where a name ends with the start of its SHA-256, that is checked.
"""

import hashlib
import importlib.metadata

from absl import flags

from minmax_jax.base.errors import OptionError, UserError, naming
from minmax_jax.base.paths import local_path

from . import program

_INPUT = flags.DEFINE_string("input", None, "File to read: .pth, .pt, .tar, .npz or .safetensors.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write, .safetensors; it must not exist.")
flags.mark_flags_as_required(["input", "output"])


def main() -> None:
    from minmax_jax import interop
    from minmax_jax.base import disk

    with naming("--"):
        source, target = local_path("input", _INPUT.value), local_path("output", _OUTPUT.value)
        if target.suffix != ".safetensors":
            raise OptionError(f"output={_OUTPUT.value!r} must end with .safetensors.")
        if target.exists():
            raise OptionError(f"output={_OUTPUT.value!r} exists already. Give another name, or remove it.")
    try:
        tensors = interop.read_tensors(source)
        with disk.explained(target.parent, needed_bytes=sum(tensor.nbytes for tensor in tensors.values())):
            interop.write_tensors(target, tensors, metadata=_describe(interop.read_layout(source)))
    except interop.InteropError as error:
        raise UserError(f"--input={_INPUT.value!r}: {error}") from error
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"{target}: {len(tensors)} tensors, {target.stat().st_size} bytes, SHA-256 {digest}")


def _describe(layout: dict[str, str]) -> dict[str, str]:
    """What the file says of itself: the layout of the source, and who wrote it."""
    known = layout or {
        "layout": "that of the source, which does not say it",
        "order": "C: the last index changes fastest",
    }
    return known | {"converted_by": f"minmax_jax {importlib.metadata.version('minmax_jax')}"}


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
