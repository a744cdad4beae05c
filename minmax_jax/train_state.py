"""All that one training step reads and writes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from minmax_jax import streams
from minmax_jax.models import minmax_net


@flax.struct.dataclass
class TrainState:
    """A pytree; training is a function from one to the next.

    Attributes:
        step: [] number of steps done.
        params: parameters of the model.
        batch_stats: running statistics of each stream, see `minmax_jax.streams`.
        opt_state: state of the optimizer.
        rng: [] key from which every step's randomness is derived.
    """

    step: jax.Array
    params: Any
    batch_stats: streams.BatchStats
    opt_state: optax.OptState
    rng: jax.Array


def create_train_state(
    rng: jax.Array,
    *,
    model: minmax_net.MinMaxNet,
    tx: optax.GradientTransformation,
    image_size: tuple[int, int],
    shared_statistics: bool = False,
) -> TrainState:
    """Fresh parameters and statistics.

    Args:
        rng: a typed key, as `jax.random.key` makes it.
        model: the networks.
        tx: the optimizer.
        image_size: (H, W) of some images; parameters do not depend on it.
        shared_statistics: one set of running statistics for all streams (published) instead of one each.
    """
    init_rng, train_rng = jax.random.split(rng)
    images = jnp.zeros((1, *image_size, 3))
    # This runs once: seconds spent on optimising its machine code would not come back.
    init = jax.jit(model.init, compiler_options={"xla_backend_optimization_level": 0})
    variables = init(init_rng, images, images[..., :1])
    params = variables["params"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=streams.create(variables.get("batch_stats", {}), shared=shared_statistics),
        opt_state=tx.init(params),
        rng=train_rng,
    )
