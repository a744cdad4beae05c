"""Fields of earlier versions that are gone: one value served every recipe and every measurement."""

from typing import Any

import ml_collections

from minmax_jax.base.errors import ConfigError

_ANY = object()  # no result of a run depends on the field
# By name: the value that every run has now. Sequences are lists, as in config.json.
FIELDS: dict[str, Any] = {
    "compilation_cache": _ANY,
    "data.synthetic.seed": 0,
    "data.synthetic.num_classes": 4,
    "data.synthetic.num_objects": [1, 3],
    "data.synthetic.object_radius": [0.14, 0.24],
    "data.synthetic.num_distractors": [1, 3],
    "data.synthetic.texture_period": 6,
    "loss.barrier_t": 5.0,
    "loss.barrier_factor": 1.01,
    "loss.barrier_limit": 10.0,
    "erasing.decay": 10.0,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": True,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.decayed": "all",
    "learning_rate.factor": 0.1,
    "learning_rate.milestones": [],
    "learning_rate.warmup_epochs": 0,
    "evaluation.empty": "skip",
    "evaluation.selection_window": _ANY,
    "evaluation.num_pictures": _ANY,
    "evaluation.crf.enabled": False,
    "evaluation.crf.gaussian_weight": 3.0,
    "evaluation.crf.bilateral_weight": 10.0,
    "evaluation.crf.max_offsets": 5000,
    "refine.batch_size": 8,
    "refine.learning_rate": 3e-3,
    "refine.width": 32,
    "refine.num_seeds": 20,
    "refine.seed_power": 2.0,
    "refine.background_share": 0.5,
    "refine.edge_bandwidth": 0.02,
    "refine.edge_reach": 4,
}
_ADVICE = {
    "evaluation.crf.enabled": "minmax-jax evaluate --crf refines masks of a finished run.",
    "compilation_cache": (
        "Set the environment variable JAX_COMPILATION_CACHE_DIR to a folder, or JAX_ENABLE_COMPILATION_CACHE to false."
    ),
    "learning_rate.warmup_epochs": "Set config.learning_rate.warmup_share, a share of the training.",
}


def explain(name: str) -> str:
    """A sentence about a field that is gone, and what to do; "" for every other name."""
    if name not in FIELDS:
        return ""
    value = "" if FIELDS[name] is _ANY else f": it is {FIELDS[name]!r} in every run"
    return f"config.{name} is gone{value}. {_ADVICE.get(name, 'Leave it out.')}"


def drop(config: ml_collections.ConfigDict) -> None:
    """Removes these fields from the configuration of an older run.

    Raises:
        ConfigError: naming every field whose value is not the one that it has now.
    """
    problems = []
    for name, fixed in FIELDS.items():
        *groups, field = name.split(".")
        group = config
        for key in groups:
            group = group.get(key, {})
        if field not in group:
            continue
        value = list(group[field]) if isinstance(group[field], tuple | list) else group[field]
        if fixed is not _ANY and value != fixed:
            problems.append(f"config.{name}={value!r} is gone: it is {fixed!r} in every run of this version.")
        del group[field]
    if problems:
        raise ConfigError("\n".join(problems))
