"""Predicts class and mask of images by a trained run.

    python -m experiments.predict --workdir=RUN --output=OUT [--geojson] [--coco] [--soft_masks[=ome-tiff]] PATH...

PATH is a file, a folder, a glob, or - for a list of these on standard input. Written are OUT/masks/STEM.png (0, 255),
OUT/overlays/STEM.png, OUT/predictions.jsonl and .csv, with --geojson OUT/geojson/STEM.geojson for QuPath, with --coco
OUT/coco.json, and last OUT/manifest.json. Files that cannot be read are skipped; the exit status is then 3. The same
command resumes after a kill. Large images and slides are predicted in tiles. --dry_run says before what all of it will
take: images, shapes, tiles, minutes and memory. docs/predict.md describes files and flags.
"""

import sys

from absl import flags

from minmax_jax.base.errors import OptionError, naming
from minmax_jax.base.paths import local_path

from . import processes, program

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; model_card.json and model.safetensors are read.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the predictions: created, or resumed.")
_GEOJSON = flags.DEFINE_flag(
    program.create_bool_or(
        "geojson", "gz", "Write polygons that QuPath opens by drag and drop; --geojson=gz: compressed, as .geojson.gz."
    )
)
_GEOJSON_TYPE = flags.DEFINE_enum(
    "geojson_type",
    None,
    ["annotation", "detection"],
    "Type of the polygons in QuPath; default: annotations, or detections in images with more than 5,000 polygons.",
)
_COCO = flags.DEFINE_bool("coco", False, "Write regions as COCO annotations.")
_SOFT_MASKS = flags.DEFINE_flag(
    program.create_bool_or(
        "soft_masks", "ome-tiff", "Write soft masks as .npy files; --soft_masks=ome-tiff: as pyramids for QuPath."
    )
)
_THRESHOLD = flags.DEFINE_float("threshold", None, "Threshold on the soft mask; default: that of the run, 0.5.")
_MIN_AREA = flags.DEFINE_integer("min_area", 16, "Pixels; smaller regions do not count as instances.")
_TOLERANCE = flags.DEFINE_float("tolerance", 1.0, "Pixels by which polygons may be simplified; 0: not at all.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 8, "Number of images, or tiles, of one shape that are predicted together."
)
_TILE_SIZE = flags.DEFINE_integer(
    "tile_size",
    None,
    "Side of the tiles, in pixels, in which larger images are predicted; 0: no tiles; default: tiles for images"
    " too large for one pass.",
)
_TILE_OVERLAP = flags.DEFINE_float("tile_overlap", 0.25, "Minimum overlap of neighbouring tiles, share of a tile.")
_MICRONS = flags.DEFINE_float(
    "microns_per_pixel", 0.0, "Microns per pixel of all images; 0: as slides and TIFF files say."
)
_RESCALE = flags.DEFINE_bool("rescale", True, "Resize images of another magnification to that of the training.")
_FLIPS = flags.DEFINE_bool("flips", None, "Average over mirror images; default: as in the run.")
_SCALES = flags.DEFINE_list("scales", None, "Average over sizes, such as 0.75,1,1.25; default: as in the run.")
_REFINE = flags.DEFINE_bool("refine", None, "Masks of the second stage; default: if the run has one.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Check everything, measure some images, say what all will take, and write nothing to --output."
)
flags.mark_flags_as_required(["workdir", "output"])

SKIPPED = 3  # exit status

# Fields of the card that a user may edit, and that change predictions.
_EDITED = ("class_names", "background_classes", "preprocessing", "reading", "microns_per_pixel")


def main(paths: list[str]) -> None:
    if not paths:
        raise OptionError("give at least one PATH (--help explains).")
    from minmax_jax.base import disk
    from minmax_jax.prediction import dry_run, folder, inputs
    from minmax_jax.runs import inference_options, predictor
    from minmax_jax.runs.folder import model_card, results

    listed = list(sys.stdin) if inputs.STDIN in paths else []
    with naming("--"):
        share = processes.find_share()
        if share is None and not _DRY_RUN.value:
            sys.exit(processes.run_all("predict", sys.argv, flags.FLAGS.num_processes, stdin="".join(listed)))
    workdir, output = local_path("--workdir", _WORKDIR.value), local_path("--output", _OUTPUT.value)
    found = inputs.find(paths, listed, output=output)
    program.start(joins_hosts=False)
    with naming("--"), disk.explained(output):
        model = predictor.load(
            workdir, flips=_FLIPS.value, scales=program.read_scales(_SCALES.value), refine=_REFINE.value
        )
        options = _read_options(model.card)
        identity = (
            model_card.identify(model.card)
            | inference_options.describe(model.card)
            | {name: model.card.get(name) for name in _EDITED}
        )
        if _DRY_RUN.value:
            print(dry_run.describe(model, found, output, options, model=identity, results=results.read(workdir)))
            if share is None or share.count > 1:
                print("Minutes and memory are those of one process that predicts all files.")
            return
        manifest = folder.predict(
            model,
            found,
            output,
            options,
            model=identity,
            results=results.read(workdir),
            left_out=found.left_out,
            workdir=str(workdir.absolute()),
            share=share,
        )
    if manifest is None:
        return
    flagged = f", {manifest['num_flagged']} with a flag" if manifest["num_flagged"] else ""
    print(f"{manifest['num_images']} images predicted{flagged}, {len(manifest['skipped'])} skipped: {_OUTPUT.value}")
    if manifest["skipped"]:
        sys.exit(SKIPPED)


def _read_options(card: dict):
    """What the flags say is written; the threshold is that of the run unless a flag gives it."""
    from minmax_jax.prediction.options import Options

    return Options(
        threshold=card["foreground_threshold"] if _THRESHOLD.value is None else _THRESHOLD.value,
        geojson=_GEOJSON.value,
        geojson_type=_GEOJSON_TYPE.value,
        coco=_COCO.value,
        soft_masks=_SOFT_MASKS.value,
        min_area=_MIN_AREA.value,
        tolerance=_TOLERANCE.value,
        batch_size=_BATCH_SIZE.value,
        tile_size=_TILE_SIZE.value,
        tile_overlap=_TILE_OVERLAP.value,
        microns_per_pixel=_MICRONS.value,
        rescale=_RESCALE.value,
    )


def run() -> None:
    """Entry point."""
    program.run(main, takes_paths=True)


if __name__ == "__main__":
    run()
