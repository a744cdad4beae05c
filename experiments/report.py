"""Writes a page about one run, or a comparison of several: `report.html` in the folder of the first.

    python -m experiments.report --workdir=RUN [RUN ...]

One file without any other: numbers with intervals and policies, curves, images that sort and filter. It reads the files
of the runs alone, no data and no model; a training writes it at its end.
"""

from absl import flags

from minmax_jax.base.paths import local_path

from . import program

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; further ones follow without a flag.")
flags.mark_flag_as_required("workdir")


def main(others: list[str]) -> None:
    from minmax_jax.base import disk
    from minmax_jax.report import page

    folders = [local_path("--workdir", folder) for folder in (_WORKDIR.value, *others)]
    with disk.explained(folders[0]):
        print(page.write(folders))


def run() -> None:
    """Entry point."""
    program.run(main, takes_paths=True)


if __name__ == "__main__":
    run()
