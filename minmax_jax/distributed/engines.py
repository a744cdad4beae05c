"""How a batch is shared by devices: engines with one interface, so that nothing else counts devices.

An engine is a module with two functions: `parallelize_train_step` takes a method's train step and returns
(state, this host's batch [B, ...]) -> (state, metrics), which donates the state; `parallelize_predict` takes a method's
predict and returns the same function on the devices of this host. B must be a multiple of the number of its devices.
"""

from minmax_jax.distributed import pmap, shard_map

ENGINES = {"pmap": pmap, "shard_map": shard_map}
