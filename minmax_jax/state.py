"""All that one training step reads and writes."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from minmax_jax import batch_stats as batch_stats_lib
from minmax_jax.models import minmax_net


@flax.struct.dataclass
class TrainState:
    """A pytree; training is a function from one to the next.

    Attributes:
        step: [] number of steps done.
        params: parameters of the model.
        batch_stats: running statistics of each stream, see `minmax_jax.batch_stats`.
        opt_state: state of the optimizer.
        rng: [] key from which every step's randomness is derived.
        average: parameters and statistics averaged over the steps, or None where only the last ones count.
    """

    step: jax.Array
    params: Any
    batch_stats: batch_stats_lib.BatchStats
    opt_state: optax.OptState
    rng: jax.Array
    average: dict[str, Any] | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """What inference needs as of the last step: "params" and "batch_stats"."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_train_state(
    rng: jax.Array,
    *,
    model: minmax_net.MinMaxNet,
    tx: optax.GradientTransformation,
    image_size: tuple[int, int],
    shared_statistics: bool = False,
    average: bool = False,
) -> TrainState:
    """Fresh parameters and statistics.

    Args:
        rng: a typed key, as `jax.random.key` makes it.
        model: the networks.
        tx: the optimizer.
        image_size: (H, W) of some images; parameters do not depend on it.
        shared_statistics: one set of running statistics for all streams (published) instead of one each.
        average: keep an average of parameters and statistics, see `average_decay` of `train_step`.
    """
    statics = dict(model=model, tx=tx, image_size=image_size, shared_statistics=shared_statistics, average=average)
    create = functools.partial(_create, **statics)
    if isinstance(rng, jax.core.Tracer):  # part of another program, or wanted for its shapes alone
        return create(rng)
    # One program, not one for each shape of array. It runs once: optimising its machine code would cost seconds.
    return jax.jit(create, compiler_options={"xla_backend_optimization_level": 0})(rng)


def _create(rng: jax.Array, *, model, tx, image_size, shared_statistics, average) -> TrainState:
    init_rng, train_rng = jax.random.split(rng)
    images = jnp.zeros((1, *image_size, 3))
    variables = model.init(init_rng, images, images[..., :1])
    params = variables["params"]
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=batch_stats_lib.create(variables.get("batch_stats", {}), shared=shared_statistics),
        opt_state=tx.init(params),
        rng=train_rng,
    )
    return state.replace(average=jax.tree.map(jnp.copy, state.variables)) if average else state


def for_inference(state: TrainState) -> TrainState:
    """The state with the averages, if it keeps any, as its parameters and statistics, and nothing but those."""
    return state.replace(**state.average or {}, opt_state=None, rng=None, average=None)
