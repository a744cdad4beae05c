"""How fast training images come, whether training waits for them, and whether memory grows.

    python -m benchmarks.input_pipeline --config=configs/glas.py:erasing=0 --config.data.dir=OUT \
        --config.model.trunk=resnet18 [--json=FILE]

Prints images/s of one thread that reads (decodes and resizes), of one that augments, and of the whole pipeline by
number of worker processes, without and with cached images; the share of training steps that waited for their batch;
and the resident memory after each of ten epochs. docs/performance.md has the figures.
"""

from collections.abc import Iterator
import itertools
import pathlib
import time

from absl import flags
import jax
from minmax_jax.configs import common
from minmax_jax.experiments import program
from ml_collections import config_flags
import numpy as np

from benchmarks import figures as figures_lib
from minmax_jax.data import dataset
from minmax_jax.runs.building import data_splits, fields
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.building.run import build_run

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration: dataset, augmentation, network.")
_WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "Numbers of processes that read; 0: two threads.")
_SECONDS = flags.DEFINE_float("seconds", 4, "Length of one measurement.")
_REPETITIONS = flags.DEFINE_integer("repetitions", 3, "Number of measurements; median and range are reported.")
_STEPS = flags.DEFINE_integer("steps", 10, "Training steps; 0: none.")
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs over which memory is watched.")
flags.mark_flags_as_required(["config"])
# A step that waited less than this share of its time did not wait.
_NEGLIGIBLE = 0.01
_GIB_OF_CACHE = 4.0


def main() -> None:
    config = _CONFIG.value
    fields.check_fields(config, common.get_config())
    program.start()
    config.data.cache_gib = 0.0
    split = data_splits.create_splits(options_lib.read(config).data)["train"]
    cached = dataset.cache_images(split, max_gib=_GIB_OF_CACHE)
    figures = {"images": len(split), "batch_size": config.batch_size, "crop": data_splits.crop_size(config.data, split)}
    figures["read"] = _rates(map(split.read_image, itertools.cycle(range(len(split)))))
    figures["augment"] = _rates(_augmented(config, split))
    for name, source in (("pipeline", split), ("pipeline, cached", cached)):
        for workers in map(int, _WORKERS.value):
            batches = _create_batches(config, source, workers)
            # The first epoch fills the cache, and empties what was read ahead.
            list(itertools.islice(batches, max(2, -(-len(split) // config.batch_size) if source is cached else 8)))
            rates = _rates(batches, scale=config.batch_size)
            figures[f"{name}, {workers} processes" if workers else f"{name}, 2 threads"] = rates
    figures["memory_gib_by_epoch"] = _watch_memory(config, split)
    if _STEPS.value:
        figures |= _train(config, split)
    for name, value in figures.items():
        print(f"{name:<28}{value}")
    figures_lib.write(figures)


def _create_batches(config, split: dataset.Split, workers: int) -> Iterator[dict]:
    config.data.num_workers = workers
    return data_splits.create_train_batches(options_lib.read(config), split)


def _rates(items: Iterator, scale: int = 1) -> dict[str, float]:
    """Items a second, times `scale`: median, minimum and maximum of the measurements."""
    rates = []
    for _ in range(_REPETITIONS.value):
        begin, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begin) < _SECONDS.value:
            next(items)
            count += scale
        rates.append(count / elapsed)
    return {"images_per_second": round(float(np.median(rates)), 1), "range": [round(f(rates), 1) for f in (min, max)]}


def _augmented(config, split: dataset.Split) -> Iterator[dict]:
    rng, augmentation = np.random.default_rng(0), data_splits.create_augmentation(config.data, split)
    examples = [{"images": split.read_image(index)} for index in range(min(16, len(split)))]
    return (augmentation.random_map(example, rng) for example in itertools.cycle(examples))


def _watch_memory(config, split: dataset.Split) -> list[float]:
    """Resident memory after each epoch of the pipeline, images not cached, two processes that read."""
    batches, found = _create_batches(config, split, 2), []
    for _ in range(_EPOCHS.value):
        for _ in range(len(split) // config.batch_size):
            next(batches)
        found.append(round(_resident_bytes() / 2**30, 3))
    return found


def _resident_bytes() -> int:
    """Of this process and its children; Linux only."""
    own = pathlib.Path("/proc/self/task")
    children = [pid for task in own.iterdir() for pid in (task / "children").read_text().split()]
    pages = (pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in ("self", *children))
    return 4096 * sum(map(int, pages))


def _train(config, split: dataset.Split) -> dict[str, float]:
    """Steps one by one: how long each took, and how long its batch had to be waited for."""
    config.data.num_workers = 0
    built = build_run(config)
    train, batches = built.train_step, data_splits.create_train_batches(options_lib.read(config), split)
    state, waits, durations = built.state, [], []
    for _ in range(_STEPS.value + 1):
        begin = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - begin)
        state, metrics = train(state, batch)
        jax.block_until_ready((state, metrics))
        durations.append(time.perf_counter() - begin)
    waits, durations = np.array(waits[1:]), np.array(durations[1:])  # The first one compiles.
    return {
        "training_images_per_second": round(config.batch_size / float(np.median(durations)), 2),
        "share_of_steps_that_waited": float(np.mean(waits > _NEGLIGIBLE * durations)),
        "share_of_time_waited": round(float(waits.sum() / durations.sum()), 5),
    }


if __name__ == "__main__":
    program.run(main)
