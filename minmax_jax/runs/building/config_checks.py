"""Checks of a configuration before any long work starts: fields, types, and values that no constructor checks."""

import difflib
import math
from typing import Any

import ml_collections
import numpy as np

from minmax_jax import interop
from minmax_jax.base import options
from minmax_jax.base.errors import ConfigError
from minmax_jax.data import padding, preprocessing
from minmax_jax.distributed import engines
from minmax_jax.evaluation import selection
from minmax_jax.models import efficientnet_lite, resnet, vit
from minmax_jax.runs.building import networks as build_model

DATASETS = ("synthetic", "glas", "cub", "cub5", "oxford_flowers", "custom")
_CHOICES = {
    "method": build_model.METHODS,
    "data.dataset": DATASETS,
    "data.split": ("released", "patients"),
    "model.trunk": (*resnet.TRUNKS, *efficientnet_lite.TRUNKS, *vit.TRUNKS),
    "model.output_stride": (0, *efficientnet_lite.OUTPUT_STRIDES),
    "model.resnet.stem": tuple(resnet.STEMS),
    "model.dtype": ("float32", "bfloat16"),
    "train.engine": tuple(engines.ENGINES),
    "evaluation.selection": selection.RULES,
}
# 0 means no value; any other must be in its range.
_OPTIONAL = ("data.crop_size", "data.microns_per_pixel")
# Least and greatest value, both allowed.
_RANGES = {
    "seed": (0, 2**31 - 1),
    "batch_size": (1, math.inf),
    "data.validation_share": (1e-6, 1 - 1e-6),
    "data.validation_seed": (0, 2**31 - 1),
    "data.subset_seed": (0, 2**31 - 1),
    "data.train_fraction": (1e-9, 1),
    "data.train_per_class": (0, math.inf),
    "data.num_train": (0, math.inf),
    "data.num_validation": (0, math.inf),
    "data.num_test": (0, math.inf),
    "data.crop_size": (preprocessing.LEAST_SIDE, 8192),
    "data.microns_per_pixel": (1e-3, 1e3),
    "data.num_workers": (0, 256),
    "data.cache_gib": (0, math.inf),
    "model.resnet.width": (1, 4096),
    "model.classifier_scale": (1e-3, 4),
    "model.modalities": (1, 1024),
    "model.dropout": (0, 1 - 1e-6),
    "train.epochs": (1, math.inf),
    "train.accumulation": (1, math.inf),
    "train.average_decay": (0, 1 - 1e-9),
    "train.eval_every": (1, math.inf),
    "train.checkpoint_every": (0, math.inf),
    "train.log_every": (1, math.inf),
    "evaluation.batch_size": (1, math.inf),
    "evaluation.selection_window": (1, math.inf),
    "evaluation.num_pictures": (0, math.inf),
}
# The same of each number of a sequence, and whether all are whole.
_SEQUENCES = {
    "model.resnet.stage_sizes": (1, math.inf, True),
    "model.resnet.stage_strides": (1, 32, True),
    "evaluation.scales": (0.1, 8, False),
    "refine.scales": (0.1, 8, False),
}


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """All fields by dotted name, with values as JSON writes them (tuples as lists)."""

    def visit(node, prefix):
        for key, value in sorted(node.items()):
            if isinstance(value, (ml_collections.ConfigDict, dict)):
                yield from visit(value, f"{prefix}{key}.")
            else:
                yield prefix + key, list(value) if isinstance(value, (tuple, list)) else value

    return dict(visit(config, ""))


def check_fields(config: ml_collections.ConfigDict, reference: ml_collections.ConfigDict) -> None:
    """Compares names and types with those of a complete configuration.

    Raises:
        ConfigError: naming every missing or unknown field and every value of another type.
    """
    given, known = flatten(config), flatten(reference)
    problems = [
        f"config.{name} is missing; its default is {known[name]!r}" for name in sorted(known.keys() - given.keys())
    ]
    for name in sorted(given.keys() - known.keys()):
        close = difflib.get_close_matches(name, known, n=1)
        problems.append(f"config.{name} is not a field" + (f"; did you mean config.{close[0]}?" if close else ""))
    for name in sorted(given.keys() & known.keys()):
        expected, value = type(known[name]), given[name]
        # An integer is accepted for a float; True is not accepted for 1.
        if type(value) is not expected and not (expected is float and type(value) is int):
            problems.append(f"config.{name}={value!r} is a {type(value).__name__}, not a {expected.__name__}")
    if problems:
        raise ConfigError("\n".join(problems))


def check_values(config: ml_collections.ConfigDict, *, num_devices: int, num_local_devices: int) -> None:
    """Checks the values that no constructor checks.

    Args:
        config: with all fields.
        num_devices: number of devices that share a batch.
        num_local_devices: number of devices that share an evaluation batch.

    Raises:
        ConfigError: naming every such field, its value, and what it must be.
    """
    fields = flatten(config)
    problems = _problems_of_numbers(fields) + [
        f"config.{name}={fields[name]!r} must be one of {tuple(choices)}."
        for name, choices in _CHOICES.items()
        if fields[name] not in choices
    ]
    problems += [
        f"config.{name}={fields[name]!r} must be from {least} to {greatest}" + (", or 0." if name in _OPTIONAL else ".")
        for name, (least, greatest) in _RANGES.items()
        if not least <= fields[name] <= greatest and not (name in _OPTIONAL and fields[name] == 0)
    ]
    problems += _problems_of_batches(fields, num_devices, num_local_devices)
    problems += _problems_of_trunk(fields)
    if fields["data.dataset"] == "custom" and not fields["data.name"]:
        problems.append("config.data.name is empty; give the name of the prepared data: --config=custom:NAME.")
    if fields["data.dataset"] == "custom" and fields["data.folds"]:
        problems.append(f"config.data.folds={fields['data.folds']!r} must be empty: own data is split by prepare_data.")
    if fields["data.split"] == "patients" and (fields["data.folds"] or fields["data.dataset"] != "glas"):
        problems.append(
            "config.data.split='patients' is for config.data.dataset=glas with an empty config.data.folds, not for"
            f" {fields['data.dataset']!r} and {fields['data.folds']!r}; set data.split to 'released'."
        )
    if fields["data.train_fraction"] < 1 and fields["data.train_per_class"]:
        problems.append(
            f"config.data.train_fraction={fields['data.train_fraction']} and data.train_per_class="
            f"{fields['data.train_per_class']} exclude each other; set one."
        )
    if fields["evaluation.flips"] and not (fields["data.flip_horizontal"] or fields["data.flip_vertical"]):
        problems.append(
            "config.evaluation.flips=True uses the flips of training, and there are none: set data.flip_horizontal"
            " or data.flip_vertical, or set it to False."
        )
    problems += _problems_of_sequences(fields)
    if problems:
        raise ConfigError("\n".join(problems))
    if config.model.trunk not in resnet.TRUNKS:
        return
    sizes = fields["model.resnet.stage_sizes"] or resnet.TRUNKS[config.model.trunk].keywords["stage_sizes"]
    if len(sizes) != len(fields["model.resnet.stage_strides"]):
        raise ConfigError(
            f"config.model.resnet.stage_strides={fields['model.resnet.stage_strides']} needs one stride for each of the"
            f" {len(sizes)} stages of sizes {list(sizes)}."
        )


def _problems_of_numbers(fields: dict[str, Any]) -> list[str]:
    """Numbers that are too great for a float32 or an int32; what is NaN is refused with the range of its field."""
    greatest = {float: float(np.finfo(np.float32).max), int: np.iinfo(np.int32).max}
    return [
        f"config.{name}={value!r} must be a number from {-limit:g} to {limit:g}."
        for name, value in fields.items()
        if (limit := greatest.get(type(value))) and abs(value) > limit
    ]


def _problems_of_sequences(fields: dict[str, Any]) -> list[str]:
    """Sequences with a value of another kind or out of range, and sizes of which there is none."""
    problems = [
        f"config.{name}=[] must name at least one size, such as 1.0."
        for name in ("evaluation.scales", "refine.scales")
        if not fields[name]
    ]
    for name, (least, greatest, whole) in _SEQUENCES.items():
        try:
            options.check_numbers(f"config.{name}", fields[name], least, greatest, whole=whole)
        except options.OptionError as error:
            problems.append(str(error))
    return problems


def _problems_of_trunk(fields: dict[str, Any]) -> list[str]:
    """An alignment of another kind of trunk or for another size, and a frozen trunk or norm without weights."""
    trunk, problems = fields["model.trunk"], []
    right, wrong = ("patches", "features") if trunk in vit.TRUNKS else ("features", "patches")
    if fields["mask.alignment"] == wrong:
        problems.append(
            f"config.mask.alignment={wrong!r} is not where the features of config.model.trunk={trunk!r} lie; set"
            f" {right!r}, or 'corners'."
        )
    if fields["mask.alignment"] == "features" and trunk not in vit.TRUNKS:
        problems += _problems_of_feature_alignment(fields)
    if trunk in efficientnet_lite.TRUNKS and fields["model.frozen_norm"] and not fields["model.pretrained"]:
        problems.append(
            "config.model.frozen_norm=True keeps the statistics of trained weights, and config.model.pretrained is"
            " empty: name weights, such as 'imagenet', or set frozen_norm to False."
        )
    if trunk in vit.TRUNKS and not fields["model.pretrained"]:
        problems.append(
            f"config.model.pretrained is empty, and config.model.trunk={trunk!r} is not trained: give a file."
            f" {interop.vit.SOURCES}"
        )
    return problems


def _problems_of_feature_alignment(fields: dict[str, Any]) -> list[str]:
    """An output stride, or crops, of which `ops.resize` cannot tell where a feature lies."""
    strides = fields["model.resnet.stage_strides"]
    stride = 4 * math.prod(strides) if fields["model.trunk"] in resnet.TRUNKS else fields["model.output_stride"] or 32
    if padding.MULTIPLE % stride:
        return [
            f"config.mask.alignment='features' needs an output stride that divides {padding.MULTIPLE}, not {stride}:"
            f" change model.resnet.stage_strides={strides}, or set it to 'corners'."
        ]
    crop = fields["data.crop_size"]
    if crop > 0 and crop % stride and math.ceil(crop / math.ceil(crop / stride)) != stride:
        below = crop // stride * stride
        return [
            f"config.data.crop_size={crop} must be a multiple of the output stride {stride} with"
            f" config.mask.alignment='features'; try {below} or {below + stride}."
        ]
    return []


def _problems_of_batches(fields: dict[str, Any], num_devices: int, num_local_devices: int) -> list[str]:
    """Batch sizes that cannot be divided evenly."""
    accumulation = max(1, fields["train.accumulation"])
    cut = f" times config.train.accumulation={accumulation}" if accumulation > 1 else ""
    problems = []
    for name, divisor, parts in (
        ("batch_size", num_devices * accumulation, f"{num_devices} devices{cut}"),
        ("evaluation.batch_size", num_local_devices, f"{num_local_devices} devices"),
    ):
        if fields[name] % divisor:
            below = fields[name] // divisor * divisor
            tries = " or ".join(str(value) for value in (below, below + divisor) if value)
            problems.append(f"config.{name}={fields[name]} must be a multiple of the {parts}; try {tries}.")
    return problems
