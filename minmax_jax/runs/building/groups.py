"""Option groups that belong to no single room: data, networks, training, evaluation. Fields: configs/common.py."""

import dataclasses
import math

import optax

from minmax_jax.base import options
from minmax_jax.base.errors import OptionError
from minmax_jax.data import preprocessing, synthetic, transforms
from minmax_jax.distributed import engines
from minmax_jax.evaluation import selection
from minmax_jax.interop import vit as vit_files
from minmax_jax.models import efficientnet_lite, resnet, vit
from minmax_jax.refinement.crf import Crf
from minmax_jax.training import optimizers, schedules

DATASETS = ("synthetic", "glas", "cub", "cub5", "oxford_flowers", "custom")
TRUNKS = (*resnet.TRUNKS, *efficientnet_lite.TRUNKS, *vit.TRUNKS)
MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which images, how they are split and sampled, and what becomes of each; fields as in group `data`.

    Attributes:
        preprocessing: of all images.
        augmentation: of training images; the size of its crops is set where they are known.
        synthetic: of the built-in images.
    """

    dataset: str
    name: str
    dir: str
    folds: str
    split: str
    validation_share: float
    validation_seed: int
    train_fraction: float
    train_per_class: int
    subset_seed: int
    background_classes: tuple[str, ...]
    permute_labels: bool
    balanced: bool
    num_train: int
    num_validation: int
    num_test: int
    microns_per_pixel: float
    crop_size: int
    num_workers: int
    cache_gib: float
    preprocessing: preprocessing.Preprocessing
    augmentation: transforms.Augmentation
    synthetic: synthetic.SyntheticConfig

    def __post_init__(self):
        options.check_choice("dataset", self.dataset, DATASETS)
        options.check_choice("split", self.split, ("released", "patients"))
        options.check_ranges(
            self,
            validation_share=(1e-6, 1 - 1e-6),
            validation_seed=(0, MAX_SEED),
            subset_seed=(0, MAX_SEED),
            train_fraction=(1e-9, 1),
            train_per_class=(0, math.inf),
            num_train=(0, math.inf),
            num_validation=(0, math.inf),
            num_test=(0, math.inf),
            num_workers=(0, 256),
            cache_gib=(0, math.inf),
            crop_size=(preprocessing.MIN_SIDE, 8192),
            microns_per_pixel=(1e-3, 1e3),
            or_zero=("crop_size", "microns_per_pixel"),
        )
        self._check_sources()

    def _check_sources(self) -> None:
        """Raises OptionError for options of another dataset, and for two that exclude each other."""
        problems = []
        if self.dataset == "custom" and not self.name:
            problems.append("name is empty; give the name of the prepared data: --config=custom:NAME.")
        if self.dataset == "custom" and self.folds:
            problems.append(f"folds={self.folds!r} must be empty: own data is split by prepare_data.")
        if self.split == "patients" and (self.folds or self.dataset != "glas"):
            problems.append(
                f"split='patients' is for data.dataset=glas with empty data.folds, not for {self.dataset!r} and"
                f" {self.folds!r}; set it to 'released'."
            )
        if self.train_fraction < 1 and self.train_per_class:
            problems.append(
                f"train_fraction={self.train_fraction} and data.train_per_class={self.train_per_class} exclude each"
                " other; set one."
            )
        if problems:
            raise OptionError(*problems)


@dataclasses.dataclass(frozen=True)
class ResNetOptions:
    """Residual trunks; fields as in group `model.resnet`."""

    stem: str
    width: int
    stage_sizes: tuple[int, ...]
    stage_strides: tuple[int, ...]

    def __post_init__(self):
        options.check_choice("stem", self.stem, tuple(resnet.STEMS))
        options.check_ranges(self, width=(1, 4096))
        options.check_numbers("stage_sizes", self.stage_sizes, 1, whole=True)
        options.check_numbers("stage_strides", self.stage_strides, 1, 32, whole=True)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The networks; fields as in group `model`."""

    trunk: str
    pretrained: str
    output_stride: int
    frozen_norm: bool
    frozen_stride: int
    separate_trunks: bool
    mask_head: bool
    classifier_scale: float
    modalities: int
    k_max: float
    k_min: float
    alpha: float
    dropout: float
    shared_statistics: bool
    unbiased_variance: bool
    cross_replica_norm: bool
    remat: bool
    dtype: str
    resnet: ResNetOptions

    def __post_init__(self):
        options.check_choice("trunk", self.trunk, TRUNKS)
        options.check_choice("output_stride", self.output_stride, (0, *efficientnet_lite.OUTPUT_STRIDES))
        options.check_choice("frozen_stride", self.frozen_stride, efficientnet_lite.FROZEN_STRIDES)
        options.check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        options.check_ranges(self, classifier_scale=(1e-3, 4), modalities=(1, 1024), dropout=(0, 1 - 1e-6))
        self._check_trunk()

    def _check_trunk(self) -> None:
        """Raises OptionError for a frozen trunk or norm without weights, and for options of another kind of trunk."""
        of_lite = self.output_stride or self.frozen_norm or self.frozen_stride
        if self.trunk not in efficientnet_lite.TRUNKS and of_lite:
            raise OptionError(
                f"output_stride={self.output_stride}, model.frozen_norm={self.frozen_norm} and"
                f" model.frozen_stride={self.frozen_stride} are for EfficientNet-Lite trunks, not {self.trunk};"
                " residual trunks have model.resnet.stage_strides."
            )
        if self.frozen_stride and not self.frozen_norm:
            raise OptionError(
                f"frozen_stride={self.frozen_stride} keeps layers as they were trained, and model.frozen_norm=False"
                " would change their batch norm: set model.frozen_norm=True, or frozen_stride to 0."
            )
        if self.trunk in efficientnet_lite.TRUNKS and self.frozen_norm and not self.pretrained:
            raise OptionError(
                "frozen_norm=True keeps the statistics of trained weights, and model.pretrained is empty: name weights,"
                " such as 'imagenet', or set frozen_norm to False."
            )
        if self.trunk in vit.TRUNKS and not self.pretrained:
            raise OptionError(
                f"pretrained is empty, and model.trunk={self.trunk!r} is not trained: give a file. {vit_files.SOURCES}"
            )
        if self.trunk in resnet.TRUNKS and len(self._stage_sizes) != len(self.resnet.stage_strides):
            raise OptionError(
                f"resnet.stage_strides={list(self.resnet.stage_strides)} needs one stride for each of the"
                f" {len(self._stage_sizes)} stages of sizes {list(self._stage_sizes)}."
            )

    @property
    def _stage_sizes(self) -> tuple[int, ...]:
        return self.resnet.stage_sizes or resnet.TRUNKS[self.trunk].keywords["stage_sizes"]

    @property
    def stride(self) -> int:
        """Output stride of the class maps; of a Vision Transformer, that of other trunks."""
        if self.trunk in resnet.TRUNKS:
            return 4 * math.prod(self.resnet.stage_strides)
        return self.output_stride or 32


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Length and machinery of the training; fields as in group `train`."""

    epochs: int
    engine: str
    accumulation: int
    average_decay: float
    eval_every: int
    checkpoint_every: int
    log_every: int
    tensorboard: bool

    def __post_init__(self):
        options.check_choice("engine", self.engine, tuple(engines.ENGINES))
        options.check_ranges(
            self,
            epochs=(1, math.inf),
            accumulation=(1, math.inf),
            average_decay=(0, 1 - 1e-9),
            eval_every=(1, math.inf),
            checkpoint_every=(0, math.inf),
            log_every=(1, math.inf),
        )


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """Metrics, test-time augmentation, selection; fields as in group `evaluation`."""

    batch_size: int
    threshold: float
    flips: bool
    scales: tuple[float, ...]
    selection: str
    crf: Crf

    def __post_init__(self):
        options.check_choice("selection", self.selection, selection.RULES)
        options.check_ranges(self, batch_size=(1, math.inf), threshold=(1e-6, 1 - 1e-6))
        options.check_sizes("scales", self.scales)


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """The optimizer; fields as in group `optimizer`."""

    name: str
    weight_decay: float
    clip_norm: float
    trunk_factor: float

    def __post_init__(self):
        self.create(0.0)  # which checks the values

    def create(
        self, learning_rate: schedules.Schedule | float, *, frozen_modules: tuple[str, ...] = ()
    ) -> optax.GradientTransformation:
        """The optimizer with this learning rate."""
        values = dataclasses.asdict(self)
        return optimizers.create_optimizer(values.pop("name"), learning_rate, frozen_modules=frozen_modules, **values)


@dataclasses.dataclass(frozen=True)
class LearningRateOptions:
    """The schedule of the learning rate; fields as in group `learning_rate`."""

    schedule: str
    peak: float
    every: int
    floor: float
    warmup_share: float

    def __post_init__(self):
        self.create(epochs=1, steps_per_epoch=1)  # which checks the values

    def create(self, *, epochs: int, steps_per_epoch: int) -> schedules.Schedule:
        """The learning rate as a function of the step."""
        values = dataclasses.asdict(self)
        return schedules.create_learning_rate(
            values.pop("schedule"), epochs=epochs, steps_per_epoch=steps_per_epoch, **values
        )
