"""One of the processes of a job: trains on its share of the batches, saves, restores, and prints what came out.

python -m tests.one_host COORDINATOR NUM_PROCESSES PROCESS_ID FOLDER OTHER_FOLDER

trains every case in FOLDER, and goes on from the checkpoints in OTHER_FOLDER. In double precision, as in test_devices.
"""

import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import optax

from minmax_jax.data import pipeline, transforms
from minmax_jax.distributed import devices, engines, hosts
from minmax_jax.runs.folder import checkpoints
from tests import networks, splits

# (num_erasures, mask_normalization, whether batch norm is cross-replica, engine)
CASES = [
    (4, "batch", True, "pmap"),
    (4, "image", False, "shard_map"),
    (0, "image", True, "shard_map"),
    (0, "batch", False, "pmap"),
]
_STEPS = 3


@functools.cache
def create(num_erasures, normalization, is_cross_replica, engine):
    """A fresh state, on the host, and a step: for one device if this process is alone, or else for those of all."""
    alone = jax.process_count() == 1
    axis_name = devices.AXIS if is_cross_replica and not alone else None
    model = networks.tiny_model(norm_axis=axis_name, dropout=0.3, dtype=jnp.float64)
    objective = networks.objective(num_erasures=num_erasures, background_weight=0.3, normalization=normalization)
    tx = optax.sgd(0.05, momentum=0.9)
    state, step = networks.start(model, objective, tx=tx)
    variables = jax.tree.map(jnp.float64, state.variables)
    state = jax.device_get(state.replace(**variables, opt_state=tx.init(variables["params"])))
    if alone:
        # As four devices do whose batch norm is of each by itself.
        return state, jax.jit(functools.partial(step, accumulation=1 if is_cross_replica else 4))
    return state, engines.ENGINES[engine].parallelize_train_step(step)


def _batches(first_batch=0):
    return pipeline.train_batches(
        splits.make_split([(32, 32)] * 12),
        batch_size=8,
        first_batch=first_batch,
        seed=0,
        augmentation=transforms.Augmentation((32, 32)),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _next(batches):
    batch = next(batches)
    return batch | {"images": batch["images"] / 127.5 - 1}


def train(folder: pathlib.Path) -> list[list[float]]:
    """The losses of some steps of each case; then a checkpoint."""
    losses = []
    for index, case in enumerate(CASES):
        fresh, step = create(*case)
        state, batches, found = devices.replicate(fresh), _batches(), []
        for _ in range(_STEPS):
            state, metrics = step(state, _next(batches))
            found.append(float(metrics["loss"]))
        saved = checkpoints.Checkpoints(folder / str(index))
        saved.save(state, checkpoints.RunRecord(selected_step=_STEPS))
        saved.wait()
        losses.append(found)
    return losses


def go_on(folder: pathlib.Path) -> list[float]:
    """The loss of the step after the checkpoint, in each case."""
    losses = []
    for index, case in enumerate(CASES):
        fresh, step = create(*case)
        state, progress = checkpoints.Checkpoints(folder / str(index)).restore_newest(fresh)
        batches = _batches(first_batch=_STEPS)
        assert int(state.step) == progress.selected_step == _STEPS
        losses.append(float(step(state, _next(batches))[1]["loss"]))
    return losses


if __name__ == "__main__":
    coordinator, num_processes, process_id, *folders = sys.argv[1:]
    jax.config.update("jax_enable_x64", True)
    hosts.join(coordinator, int(num_processes), int(process_id))
    found = {
        "num_devices": jax.device_count(),
        "losses": train(pathlib.Path(folders[0])),
        "later": go_on(pathlib.Path(folders[1])),
        "shares": hosts.gather_from_hosts(hosts.share_of_host(5).tolist()),
    }
    print(json.dumps(found))
    hosts.leave()
