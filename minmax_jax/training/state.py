"""The training state: everything that one step reads and writes."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from minmax_jax.models import minmax_net
from minmax_jax.training import batch_stats as stats_lib


@flax.struct.dataclass
class TrainState:
    """A pytree; a training step maps one to the next.

    Attributes:
        step: [] number of completed steps.
        params: parameters of the model.
        batch_stats: running statistics of each stream, see `minmax_jax.training.batch_stats`.
        opt_state: state of the optimizer.
        rng: [] key from which every step's randomness is derived.
        average: exponential moving average of parameters and statistics, or None.

    Example:
        A pytree, so that it passes through `jit`, and is changed by copies:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import minmax_jax as mm
        >>> params = {"kernel": jnp.zeros(3)}
        >>> state = mm.TrainState(jnp.int32(0), params, batch_stats={}, opt_state=(), rng=jax.random.key(0))
        >>> int(state.replace(step=state.step + 1).step), sorted(state.variables)
        (1, ['batch_stats', 'params'])
    """

    step: jax.Array
    params: Any
    batch_stats: stats_lib.BatchStats
    opt_state: optax.OptState
    rng: jax.Array
    average: dict[str, Any] | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """The model's variables after the last step: "params" and "batch_stats"."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_train_state(
    rng: jax.Array,
    image_size: tuple[int, int],
    *,
    model: minmax_net.MinMaxNet,
    tx: optax.GradientTransformation,
    shared_statistics: bool = False,
    average: bool = False,
) -> TrainState:
    """Creates a state with fresh parameters and statistics.

    Args:
        rng: a typed key, as `jax.random.key` makes it.
        image_size: (H, W) of some images; parameters do not depend on it.
        model: the networks.
        tx: the optimizer.
        shared_statistics: one set of running statistics for all streams (published) instead of one each.
        average: keep a moving average of parameters and statistics, see `update_average`.

    Example:
        >>> import jax
        >>> import minmax_jax as mm
        >>> model = mm.create_model(mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4), num_classes=3)
        >>> tx = mm.create_optimizer("sgd", 0.1)
        >>> state = mm.create_train_state(jax.random.key(0), (32, 32), model=model, tx=tx)
        >>> int(state.step), sorted(state.batch_stats)
        (0, ['background', 'foreground', 'whole'])
    """
    statics = dict(model=model, tx=tx, image_size=image_size, shared_statistics=shared_statistics, average=average)
    create = functools.partial(_create, **statics)
    if isinstance(rng, jax.core.Tracer):  # inside another program, or under eval_shape
        return create(rng)
    # One program instead of one per shape. It runs once, and optimising its machine code would cost seconds.
    return jax.jit(create, compiler_options={"xla_backend_optimization_level": 0})(rng)


def _create(rng: jax.Array, *, model, tx, image_size, shared_statistics, average) -> TrainState:
    init_rng, train_rng = jax.random.split(rng)
    images = jnp.zeros((1, *image_size, 3))
    variables = model.init(init_rng, images, images[..., :1])
    params = variables["params"]
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=stats_lib.create(variables.get("batch_stats", {}), shared=shared_statistics),
        opt_state=tx.init(params),
        rng=train_rng,
    )
    return state.replace(average=jax.tree.map(jnp.copy, state.variables)) if average else state


def update_average(state: TrainState, decay: float) -> TrainState:
    """Updates the exponential moving average of the variables, where the state keeps one.

    Args:
        state: after a step.
        decay: of the average; smaller in the first steps, so that the average forgets the random start.
    """
    if state.average is None:
        return state
    share = jnp.maximum(1 - decay, 9 / (9 + state.step))
    return state.replace(average=optax.incremental_update(state.variables, state.average, share))


def inference_variables(state: TrainState) -> dict[str, Any]:
    """The variables that are validated, tested and saved: "params", "batch_stats" and the "step" they belong to.

    Parameters and statistics are the averages, where the state keeps them.
    """
    return (state.average or state.variables) | {"step": state.step}
