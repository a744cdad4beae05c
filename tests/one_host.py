"""One of the processes of a job: trains on its share of a batch, saves, restores, and prints what came out.

python -m tests.one_host COORDINATOR NUM_PROCESSES PROCESS_ID FOLDER
"""

import json
import sys

import jax
import numpy as np

import minmax_jax as mm
from minmax_jax import checkpoints, parallel
from minmax_jax.data import pipeline, transforms
from tests import networks, splits


def train(folder) -> dict:
    """Three steps on the same batch, whatever the number of hosts and devices, and a checkpoint."""
    objective = mm.Objective(num_erasures=2, background_weight=0.3, mask_normalization="batch")
    model = networks.tiny_model(norm_axis=parallel.AXIS, dropout=0.3)
    start, step = networks.start(model, objective)
    state, step = parallel.replicate(start), parallel.pmap_train_step(step)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    per_host = 8 // jax.process_count()
    share = slice(jax.process_index() * per_host, (jax.process_index() + 1) * per_host)
    batch = {"images": images[share], "labels": np.arange(8)[share] % 3}
    losses = []
    for _ in range(3):
        state, metrics = step(state, parallel.split_among_devices(batch))
        losses.append(float(metrics["loss"]))
    saved = checkpoints.Checkpoints(folder)
    saved.save(state, _batches(), checkpoints.Progress(selected_step=3))
    saved.wait()
    restored, progress = saved.restore_newest(networks.start(model, objective)[0])
    state, metrics = step(restored, parallel.split_among_devices(batch))
    return {
        "num_devices": jax.device_count(),
        "losses": [*losses, float(metrics["loss"])],
        "selected_step": progress.selected_step,
        "shares": parallel.gather_from_hosts(parallel.share_of_host(5).tolist()),
    }


def _batches():
    augmentation = transforms.Augmentation((32, 32))
    return pipeline.train_batches(splits.make_split([(32, 32)] * 4), batch_size=2, seed=0, augmentation=augmentation)


if __name__ == "__main__":
    coordinator, num_processes, process_id, workdir = sys.argv[1:]
    parallel.initialize(coordinator, int(num_processes), int(process_id))
    print(json.dumps(train(workdir)))
