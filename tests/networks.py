"""Networks small enough to compile in seconds."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import minmax_jax as mm


class TinyTrunk(nn.Module):
    """A trunk of a user's own: one convolution and one batch norm, output stride 4."""

    norm_axis: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.Conv(4, (4, 4), strides=(4, 4), padding="VALID", dtype=self.dtype, name="conv")(images)
        axis_name = self.norm_axis if train else None
        norm = nn.BatchNorm(
            use_running_average=not train, momentum=0.9, axis_name=axis_name, dtype=self.dtype, name="norm"
        )
        return nn.relu(norm(features))


def objective(**options) -> mm.Objective:
    """An objective from options of any group, by name; erasing starts in the first step by default."""
    groups = {"loss": mm.losses.LossOptions, "mask": mm.masks.MaskOptions, "erasing": mm.erasing.ErasingOptions}
    options = {"start_epoch": 0} | options
    given = {
        group: kind(**{name: options.pop(name) for name in kind.__dataclass_fields__ if name in options})
        for group, kind in groups.items()
    }
    return mm.Objective(**given, **options)


def tiny_model(
    *, num_classes: int = 3, norm_axis: str | None = None, dtype=jnp.float32, dropout: float = 0.0, **options
) -> mm.MinMaxNet:
    """Both networks on a tiny trunk."""
    trunk = TinyTrunk(norm_axis=norm_axis, dtype=dtype)
    head = wildcat(modalities=2, k_max=0.3, k_min=0.0, dropout=dropout, dtype=dtype)
    return mm.create_model(trunk, num_classes=num_classes, head=head, **options)


def wildcat(**options):
    """WILDCAT heads with other options than the published ones, for `mm.create_model`."""
    return functools.partial(mm.heads.WildcatHead, **options)


def start(model: mm.MinMaxNet, objective: mm.Objective, *, tx=None, shared_statistics: bool = False):
    """A fresh state, and its train step."""
    tx = tx or optax.sgd(0.05, momentum=0.9)
    state = mm.create_train_state(
        jax.random.key(0), model=model, tx=tx, image_size=(32, 32), shared_statistics=shared_statistics
    )
    return state, functools.partial(mm.train_step, model=model, tx=tx, objective=objective)
