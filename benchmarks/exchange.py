"""What the hosts of a job send each other in a training step, and how long the step takes: measured.

    python -m benchmarks.exchange --coordinator=HOST0:12345 --num_processes=N --process_id=I [--json=FILE]

The same command on each host, as for training (docs/scale.md); on a single host, without the flags of the first line,
the time to compare with. Each host prints its own figures. Bytes are those that Linux counts at the host's network
interfaces, including traffic of other programs; where processes share a machine, they are those of all its processes.
All erasures are carried out.
"""

import functools
import pathlib
import time

from absl import flags
import jax
from minmax_jax.experiments import program
import numpy as np

from benchmarks import all_erasures
from benchmarks import figures as figures_lib
import minmax_jax as mm
from minmax_jax.distributed import devices as devices_lib
from minmax_jax.distributed import pmap
from minmax_jax.models import resnet

_TRUNK = flags.DEFINE_enum("trunk", "resnet18", list(resnet.TRUNKS), "Trunk, with the deep stem.")
_SIZE = flags.DEFINE_integer("size", 128, "Pixels, height and width.", 32)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images of each device.", 1)
_NUM_ERASURES = flags.DEFINE_list("num_erasures", ["0", "4"], "R, one or several.")
_CROSS_REPLICA_NORM = flags.DEFINE_bool("cross_replica_norm", False, "As model.cross_replica_norm.")
_REPETITIONS = flags.DEFINE_integer("repetitions", 7, "Steps that are measured.", 1)
_NUM_CLASSES, _WARM_UP = 2, 2


def main() -> None:
    program.start(keeps_compiled=False)
    figures = {"hosts": jax.process_count(), "devices": jax.device_count()}
    figures |= {flag.name: flag.value for flag in (_TRUNK, _SIZE, _BATCH_SIZE, _CROSS_REPLICA_NORM)}
    for number in map(int, _NUM_ERASURES.value):
        figures[f"R = {number}"] = _measure(number)
    for name, value in figures.items():
        print(f"{name:<20}{value}")
    figures_lib.write(figures)


def _measure(num_erasures: int) -> dict:
    step, state = _create_step(num_erasures)
    images = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE.value, _SIZE.value, _SIZE.value, 3), np.uint8)
    batch = {"images": images, "labels": np.zeros(len(images), np.int32)}
    batch = jax.tree.map(lambda array: np.stack([array] * jax.local_device_count()), batch)
    seconds, sent = [], []
    for _ in range(_WARM_UP + _REPETITIONS.value):
        start, before = time.perf_counter(), _bytes_sent()
        state, metrics = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
        sent.append((_bytes_sent() - before) / 1e6)
        all_erasures.check_passes(int(metrics["num_passes"]), num_erasures)
    measured = {"seconds": seconds[_WARM_UP:], "megabytes_sent": sent[_WARM_UP:]}
    return {name: figures_lib.summarize(values) for name, values in measured.items()}


def _create_step(num_erasures: int):
    norm_axis = devices_lib.AXIS if _CROSS_REPLICA_NORM.value else None
    model = mm.create_model(resnet.TRUNKS[_TRUNK.value](norm_axis=norm_axis), num_classes=_NUM_CLASSES)
    tx = mm.create_optimizer("sgd", 1e-4, weight_decay=1e-5)
    state = all_erasures.create_state(model, tx, image_size=(64, 64))
    objective = mm.Objective(erasing=mm.erasing.ErasingOptions(num_erasures=num_erasures, start_epoch=0))
    step = functools.partial(mm.train_step, model=model, tx=tx, objective=objective)
    return pmap.pmap_train_step(step), devices_lib.replicate(state)


def _bytes_sent() -> int:
    """Of this host, through all its interfaces, since they are up."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()[2:]
    return sum(int(line.partition(":")[2].split()[8]) for line in lines)


if __name__ == "__main__":
    program.run(main)
