"""Tests whether the masks of a run show what its model looks at.

    python -m experiments.faithfulness --workdir=runs/synthetic [--split=test] [--num_images=16]

Prints insertion, deletion, average drop and pointing of the masks, next to a random map and a box of the same area, and
how alike masks stay when weights are randomized; writes them to `faithfulness.json` in the folder of the run, whose
report shows them from then on. docs/interpret.md explains the numbers. An image takes about 250 predictions.
"""

from absl import flags

from minmax_jax.base import strict_json
from minmax_jax.base.errors import naming
from minmax_jax.base.paths import local_path

from . import program

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Images to test on.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 16, "Number of images, evenly spaced over the split.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 20, "Steps of the curves of insertion and deletion.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the prepared data; default: as in training.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    from minmax_jax.base import disk
    from minmax_jax.report import page
    from minmax_jax.runs import faithfulness_test

    folder = local_path("--workdir", _WORKDIR.value)
    program.start()
    with naming("--"), disk.explained(folder):
        content = faithfulness_test.test_workdir(
            _WORKDIR.value,
            _SPLIT.value,
            num_images=_NUM_IMAGES.value,
            num_steps=_NUM_STEPS.value,
            data_dir=_DATA_DIR.value,
        )
    print(strict_json.dumps(content, indent=2))
    with disk.explained(folder):
        page.write([folder])


def run() -> None:
    """Entry point."""
    program.run(main)


if __name__ == "__main__":
    run()
