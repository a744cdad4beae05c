"""Folders with a saved model that nobody trained: random weights, statistics of random images."""

import jax
import jax.numpy as jnp
from minmax_jax.configs import synthetic
import ml_collections
import numpy as np

import minmax_jax as mm
from minmax_jax.models import decoder
from minmax_jax.runs.building import creation
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.folder import model_card
from minmax_jax.training import batch_stats as stats_lib
from tests import programs

CLASS_NAMES = ("cat", "dog", "some bird")
_SIDE = 64


def create_config(**changes) -> ml_collections.ConfigDict:
    """The tiny configuration, with changes such as model__trunk="resnet50"."""
    config = synthetic.get_config()
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    config.update_from_flattened_dict(programs.TINY | changes)
    return config


def write(folder, *, background_classes=(), **changes) -> None:
    """Writes model_card.json and model.safetensors of a configuration with changes; some classes have no region."""
    config = create_config(**changes)
    method = creation.create_method(options_lib.read(config), num_classes=len(CLASS_NAMES), steps_per_epoch=1)
    state = method.init(jax.random.key(0), (_SIDE, _SIDE))
    variables = {"params": state.params, "batch_stats": _statistics(config, state)}
    if config.refine.enabled:
        images = jnp.zeros((1, _SIDE, _SIDE, 3))
        stages = decoder.select_stages(method.stages(variables, images))
        network = creation.create_decoder(config.model.trunk)
        variables["decoder"] = network.init(jax.random.key(1), stages, images)["params"]
    card = model_card.describe(
        options_lib.read(config),
        steps_per_epoch=1,
        class_names=CLASS_NAMES,
        background_classes=background_classes,
        crop_size=(_SIDE, _SIDE),
        train_labels=np.arange(12) % len(CLASS_NAMES),
        step=1,
        state_digest="0123456789abcdef" * 4,
    )
    folder.mkdir(exist_ok=True)
    model_card.save(folder, card, variables)


def _statistics(config, state):
    """Running statistics of random images: without, a deep trunk of random weights loses its signal."""
    head = mm.heads.MeanHead if config.method == "cam" else None
    model = creation.create_model(options_lib.read(config).model, head, num_classes=len(CLASS_NAMES))
    images = jax.random.uniform(jax.random.key(2), (4, _SIDE, _SIDE, 3), minval=-1)
    keys = jax.random.split(jax.random.key(3), 4)
    momentum = 0.99 if config.model.trunk.startswith("efficientnet") else 0.9

    @jax.jit
    def update(statistics):
        for method, inputs in (("localize", (images,)), ("classify", (images, jnp.full((4, _SIDE, _SIDE, 1), 0.5)))):
            variables = {"params": state.params, "batch_stats": statistics}
            options = dict(train=True, sample_keys=keys, method=method, mutable="batch_stats")
            _, new = model.apply(variables, *inputs, **options)
            statistics = jax.tree.map(lambda a, b: (b - momentum * a) / (1 - momentum), statistics, new["batch_stats"])
        return jax.tree_util.tree_map_with_path(
            lambda path, x: jnp.maximum(x, 0.01) if path[-1].key == "var" else x, statistics
        )

    statistics = stats_lib.read(state.batch_stats, stats_lib.WHOLE)
    statistics = update(statistics) if statistics else {}
    return {name: statistics for name in state.batch_stats}
