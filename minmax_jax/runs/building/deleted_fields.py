"""Fields of earlier versions that are gone: one value served every recipe, or no result depended on them."""

import ast
from collections.abc import Mapping
import pathlib
from typing import Any

from minmax_jax.base.errors import ConfigError

_ANY = object()  # no result of a run depends on the field
# Fields whose code is deleted as well; that of the others keeps the value as a default or a constant.
_OF_DELETED_CODE: dict[str, Any] = {
    "refine.num_erasures": 0,
    "refine.edge_source": "colors",
    "refine.feature_bandwidth": _ANY,
    "evaluation.crf.enabled": False,
}
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
    **_OF_DELETED_CODE,
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


def changes_nothing(name: str, text: str) -> bool:
    """Whether a field is gone, and its value, as on a command line, is what every run has now or changes no result."""
    if name not in FIELDS:
        return False
    if FIELDS[name] is _ANY:
        return name not in _ADVICE
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    return FIELDS[name] == (list(value) if isinstance(value, tuple) else value)


def drop(path: pathlib.Path, group: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """A group of a configuration without its deleted fields.

    Args:
        path: of the file that holds it, for the error.
        group: values, and further groups, by name.
        prefix: name of the group with a dot, such as "refine."; "" for a whole configuration.

    Raises:
        ConfigError: for a deleted field with another value than the one that every run has now.
    """
    kept = {}
    for name, value in group.items():
        full_name = prefix + name
        if isinstance(value, Mapping):
            kept[name] = drop(path, value, prefix=f"{full_name}.")
        elif full_name not in FIELDS:
            kept[name] = value
        elif FIELDS[full_name] not in (_ANY, value):
            raise ConfigError(
                f"{path}: {full_name}={value!r} is deleted from this version, which does what"
                f" {full_name}={FIELDS[full_name]!r} did. Remove the field from the file to go"
                " on with that, or install the version that wrote it."
            )
    return kept
