"""A configuration as frozen options: read and checked once, before data is read and before anything is built."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

import ml_collections
import numpy as np

from minmax_jax.base import errors, options
from minmax_jax.base.errors import ConfigError, OptionError
from minmax_jax.data import padding
from minmax_jax.masks import MaskOptions
from minmax_jax.models import vit
from minmax_jax.refinement.options import RefineOptions
from minmax_jax.runs.building import methods
from minmax_jax.runs.building.fields import flatten
from minmax_jax.runs.building.groups import (
    MAX_SEED,
    DataOptions,
    EvaluationOptions,
    LearningRateOptions,
    ModelOptions,
    OptimizerOptions,
    TrainOptions,
)
from minmax_jax.training.views import Views


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a run; each attribute but `method_options` has the name of its field or group in configs/common.py.

    Attributes:
        method_options: what the method alone reads, of the class that its entry in `methods.METHODS` names.
    """

    method: str
    seed: int
    batch_size: int
    data: DataOptions
    model: ModelOptions
    method_options: Any
    optimizer: OptimizerOptions
    learning_rate: LearningRateOptions
    train: TrainOptions
    evaluation: EvaluationOptions
    refine: RefineOptions

    def __post_init__(self):
        options.check_ranges(self, seed=(0, MAX_SEED), batch_size=(1, math.inf))
        if self.train.accumulation > 1 and not methods.METHODS[self.method].accumulates:
            raise OptionError(
                f"train.accumulation={self.train.accumulation} is not for method={self.method}; set it to 1."
            )
        if self.evaluation.flips and not any(self.training_flips.values()):
            raise OptionError(
                "evaluation.flips=True uses the flips of training, and there are none: set data.flip_horizontal or"
                " data.flip_vertical, or set it to False."
            )
        trains_masks = methods.METHODS[self.method].trains_through_masks and self.mask.gradient == "flow"
        if self.model.mask_head and not trains_masks:
            raise OptionError(
                f"model.mask_head=True learns from the gradient through the masks: mask.gradient={self.mask.gradient!r}"
                f" of method={self.method!r} gives it none. Set mask.gradient='flow' with one of"
                f" {_methods_through_masks()}, or set it to False."
            )
        _check_alignment(self)

    @property
    def mask(self) -> MaskOptions:
        """How class maps become masks."""
        return self.method_options.mask

    @property
    def training_flips(self) -> dict[str, bool]:
        """Whether training images are mirrored, "horizontal" and "vertical"."""
        augmentation = self.data.augmentation
        return {"horizontal": augmentation.flip_horizontal, "vertical": augmentation.flip_vertical}

    @property
    def views(self) -> Views:
        """Test-time augmentation: the mirror images of training, if predictions are means over them, and the sizes."""
        flips = {f"flip_{axis}": self.evaluation.flips and used for axis, used in self.training_flips.items()}
        return Views(**flips, scales=self.evaluation.scales)

    def with_views(self, *, flips: bool, scales: tuple[float, ...]) -> "RunOptions":
        """These options with another test-time augmentation.

        Args:
            flips: whether predictions are means over the mirror images of training.
            scales: sizes that they are means over.
        """
        evaluation = dataclasses.replace(self.evaluation, flips=flips, scales=scales)
        return dataclasses.replace(self, evaluation=evaluation)


def read(config: ml_collections.ConfigDict, *, num_devices: int = 1, num_local_devices: int = 1) -> RunOptions:
    """Reads and checks a configuration that has all fields.

    Args:
        config: as of configs/common.py, with names and types checked by `fields.check_fields`.
        num_devices: number of devices that share a batch.
        num_local_devices: number of devices of this host, which share an evaluation batch.

    Raises:
        ConfigError: naming the fields, their values, and what they must be.
    """
    problems, groups = [*_check_numbers(config)], {}
    if config.method not in methods.METHODS:
        problems.append(f"config.method={config.method!r} must be one of {tuple(methods.METHODS)}.")
    for field in dataclasses.fields(RunOptions):
        is_of_method = field.name == "method_options"
        if is_of_method and config.method not in methods.METHODS:
            continue
        kind = methods.METHODS[config.method].options if is_of_method else field.type
        if not dataclasses.is_dataclass(kind):
            groups[field.name] = config[field.name]
            continue
        node, prefix = (config, "config.") if is_of_method else (config[field.name], f"config.{field.name}.")
        try:
            groups[field.name] = _create(kind, node, prefix)
        except OptionError as error:
            problems += error.args
    problems += _check_batches(config, num_devices, num_local_devices)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    try:
        with errors.naming("config."):
            return RunOptions(**groups)
    except OptionError as error:
        raise ConfigError(str(error)) from error


def _methods_through_masks() -> tuple[str, ...]:
    return tuple(name for name, entry in methods.METHODS.items() if entry.trains_through_masks)


def _create(kind: type, node: ml_collections.ConfigDict, prefix: str) -> Any:
    """An option dataclass from the fields of the same names.

    A dataclass in it that has no group of its own, such as `Preprocessing` in `data`, reads the group around it.
    """
    values, problems = {}, []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            has_group = field.name in node
            group, name = (node[field.name], f"{prefix}{field.name}.") if has_group else (node, prefix)
            try:
                values[field.name] = _create(field.type, group, name)
            except OptionError as error:
                problems += error.args
        elif field.name in node:
            value = node[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    if problems:
        raise OptionError(*problems)
    with errors.naming(prefix):
        return kind(**values)


def _check_numbers(config: ml_collections.ConfigDict) -> Iterator[str]:
    """Numbers that are too large for a float32 or an int32; what is NaN is refused with the range of its field."""
    maximum = {float: float(np.finfo(np.float32).max), int: np.iinfo(np.int32).max}
    for name, value in flatten(config).items():
        if (limit := maximum.get(type(value))) and abs(value) > limit:
            yield f"config.{name}={value!r} must be a number from {-limit:g} to {limit:g}."


def _check_batches(config: ml_collections.ConfigDict, num_devices: int, num_local_devices: int) -> Iterator[str]:
    """Batch sizes that cannot be divided evenly."""
    accumulation = max(1, config.train.accumulation)
    cut = f" times config.train.accumulation={accumulation}" if accumulation > 1 else ""
    for name, value, divisor, parts in (
        ("batch_size", config.batch_size, num_devices * accumulation, f"{num_devices} devices{cut}"),
        ("evaluation.batch_size", config.evaluation.batch_size, num_local_devices, f"{num_local_devices} devices"),
    ):
        if value % divisor:
            below = value // divisor * divisor
            tries = " or ".join(str(size) for size in (below, below + divisor) if size)
            yield f"config.{name}={value} must be a multiple of the {parts}; try {tries}."


def _check_alignment(run: RunOptions) -> None:
    """Raises OptionError for an alignment of another kind of trunk, or of which no one knows where features lie."""
    alignment, model, crop = run.mask.alignment, run.model, run.data.crop_size
    right, wrong = ("patches", "features") if model.trunk in vit.TRUNKS else ("features", "patches")
    if alignment == wrong:
        raise OptionError(
            f"mask.alignment={wrong!r} is not where the features of model.trunk={model.trunk!r} lie; set {right!r}, or"
            " 'corners'."
        )
    if alignment != "features":
        return
    stride = model.stride
    if padding.MULTIPLE % stride:
        raise OptionError(
            f"mask.alignment='features' needs an output stride that divides {padding.MULTIPLE}, not {stride}: change"
            f" model.resnet.stage_strides={list(model.resnet.stage_strides)}, or set it to 'corners'."
        )
    if crop > 0 and crop % stride and math.ceil(crop / math.ceil(crop / stride)) != stride:
        below = crop // stride * stride
        raise OptionError(
            f"data.crop_size={crop} must be a multiple of the output stride {stride} with mask.alignment='features';"
            f" try {below} or {below + stride}."
        )
