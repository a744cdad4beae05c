"""Writes the model of a run as one file for other programs: StableHLO or ONNX, with the mask inside.

    python -m experiments.export --workdir=RUN --format=stablehlo|onnx --size=H,W|any --output=FILE

The file takes `images` [B, H, W, 3] float32 in [-1, 1], any number B of them, and answers `probabilities` [B, C],
`masks` [B, H, W, 1] and, of min-max entropy, `foreground_entropy` and `background_entropy` [B]. It is compared with the
model on random images before it is kept. Next to it are MODEL_CARD.md and, of ONNX, rdf.yaml for the BioImage model
zoo. docs/export.md has programs that read the files.
"""

from absl import flags

from minmax_jax.base.errors import OptionError, naming
from minmax_jax.base.paths import local_path

from . import program

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; model_card.json and model.safetensors are read.")
_FORMAT = flags.DEFINE_enum("format", None, ["stablehlo", "onnx"], "Format of the file.")
_SIZE = flags.DEFINE_list(
    "size", None, "H,W: height and width of the preprocessed images, pixels; or any, where the model allows it."
)
_OUTPUT = flags.DEFINE_string("output", None, "File to write; it must not exist.")
_LICENCE = flags.DEFINE_string(
    "license", "", "License of the weights for the model card, an SPDX identifier such as CC-BY-4.0."
)
_FLIPS = flags.DEFINE_bool("flips", None, "Average over mirror images; default: as in the run.")
_SCALES = flags.DEFINE_list("scales", None, "Average over sizes, such as 0.75,1,1.25; default: as in the run.")
_REFINE = flags.DEFINE_bool("refine", None, "Masks of the second stage; default: if the run has one.")
flags.mark_flags_as_required(["workdir", "format", "size", "output"])


def main() -> None:
    program.start()
    from minmax_jax.base import disk
    from minmax_jax.export import model_files, stablehlo, zoo

    with naming("--"), disk.explained(local_path("output", _OUTPUT.value).parent):
        written = model_files.write(
            local_path("workdir", _WORKDIR.value),
            local_path("output", _OUTPUT.value),
            format=_FORMAT.value,
            size=_read_size(_SIZE.value),
            flips=_FLIPS.value,
            scales=program.read_scales(_SCALES.value),
            refine=_REFINE.value,
            licence=_LICENCE.value,
        )
    differences = ", ".join(f"{name} {value:.1g}" for name, value in written["differences"].items())
    print(f"{written['file']}: {written['bytes']} bytes, SHA-256 {written['sha256']}")
    print(f"Maximum differences from the model on random images: {differences}")
    if _FORMAT.value == "onnx" and "zoo" not in written:
        print(zoo.explain_absence(local_path("output", _OUTPUT.value).parent))
    if "guaranteed_until" in written:
        print(f"The file is {stablehlo.explain(written)}.")


def _read_size(words: list[str]) -> tuple[int, ...] | None:
    if words == ["any"]:
        return None
    try:
        return tuple(map(int, words))
    except ValueError:
        raise OptionError(f"size={','.join(words)} must be H,W: two whole numbers of pixels, or any.") from None


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
