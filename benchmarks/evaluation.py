"""How long a whole test set takes, metrics included, against an evaluation image by image in plain PyTorch.

    python -m benchmarks.evaluation --config=configs/glas.py --config.data.dir=OUT --config.model.trunk=resnet18 \
        [--num_images=8] [--repetitions=3] [--json=FILE]

Both sides have the same random weights, read the same files and give the same numbers, which is checked. They take
turns in one process; the ratio is that of neighbouring turns, median and range. The first turn of each compiles, and
is told apart. CPU seconds tell more than seconds where other programs run beside. Needs the extra `[torch]`.
docs/performance.md has the figures.
"""

from collections.abc import Callable
import functools
import time

from absl import flags
from minmax_jax.configs import common
from minmax_jax.experiments import program
from ml_collections import config_flags
import numpy as np

from benchmarks import figures as figures_lib
from benchmarks import torch_evaluation, torch_twin
from minmax_jax.data import dataset
from minmax_jax.runs import final_test
from minmax_jax.runs.building import creation, fields
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.building import run as build

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration: dataset, network, evaluation.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 0, "Of the test set, evenly spread over it; 0 takes all.", 0)
_REPETITIONS = flags.DEFINE_integer("repetitions", 3, "Turns of each side after the first.", 1)
flags.mark_flags_as_required(["config"])


def main() -> None:
    config = _CONFIG.value
    fields.check_fields(config, common.get_config())
    program.start("off")
    config.model.shared_statistics = True  # the peer has one set
    built = build.build_run(config)
    split = _choose(built.splits["test"])
    mask, num_classes = config.mask, len(split.class_names)
    model = creation.create_model(options_lib.read(config).model, num_classes=num_classes)
    net = torch_twin.create(model, built.state.variables, sigma=mask.sigma, omega=mask.omega)
    sides = {
        "minmax_jax": lambda: final_test.evaluate_split(built, split, built.state)[1],
        "torch": functools.partial(torch_evaluation.evaluate, net, split),
    }
    first, summaries = {}, {}
    for name, run in sides.items():
        first[name], summaries[name] = _time(run)
    torch_evaluation.check_agreement(*summaries.values())
    times = {name: [] for name in sides}
    for _ in range(_REPETITIONS.value):
        for name, run in sides.items():
            times[name].append(_time(run)[0])
    _tell(config, len(split), first, times, summaries)


def _choose(split: dataset.Split) -> dataset.Split:
    count = _NUM_IMAGES.value or len(split)
    return dataset.subset(split, np.linspace(0, len(split) - 1, count).round().astype(int))


def _time(run: Callable[[], dict]) -> tuple[np.ndarray, dict]:
    """Seconds by the clock and by the processor, and what `run` returns."""
    clocks = (time.perf_counter, time.process_time)
    start = [clock() for clock in clocks]
    summary = run()
    return np.array([clock() for clock in clocks]) - start, summary


def _tell(config, num_images: int, first: dict, times: dict, summaries: dict) -> None:
    """Prints the table, and writes the figures; times are (by the clock, by the processor)."""
    figures = {"trunk": config.model.trunk, "images": num_images, "batch_size": config.evaluation.batch_size}
    print("| | s | range | CPU s | first, s | images/s |\n|---|---|---|---|---|---|")
    for name, turns in times.items():
        wall, cpu = (figures_lib.summarize(seconds) for seconds in np.transpose(turns))
        figures[name] = {"seconds": wall, "cpu_seconds": cpu, "first_seconds": round(first[name][0], 2)}
        print(
            f"| {name} | {wall['median']} | {wall['min']} to {wall['max']} | {cpu['median']} | {first[name][0]:.1f}"
            f" | {num_images / wall['median']:.2f} |"
        )
    ours, theirs = map(np.array, times.values())
    figures["ratio"], figures["cpu_ratio"] = map(figures_lib.summarize, (ours / theirs).T)
    print(f"ratio      {figures['ratio']}\nCPU ratio  {figures['cpu_ratio']}")
    for name, value in summaries["torch"].items():
        print(f"{name:<32}{value:.4f} in the peer")
    figures_lib.write(figures | {"summaries": summaries})


if __name__ == "__main__":
    program.run(main)
