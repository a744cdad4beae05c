"""From a configuration to a method: networks, objective, optimizer, post-processing. No dataset is needed."""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from minmax_jax import interop
from minmax_jax.base import errors
from minmax_jax.base.paths import local_path
from minmax_jax.baselines import localizer_alone
from minmax_jax.distributed import devices
from minmax_jax.method import Method, Prediction
from minmax_jax.minmax import method as minmax
from minmax_jax.minmax import objective as objective_lib
from minmax_jax.models import decoder as decoder_lib
from minmax_jax.models import efficientnet_lite, mask_head, minmax_net, resnet, vit
from minmax_jax.models.trunks import Stages
from minmax_jax.refinement import calibration, refined_inference
from minmax_jax.refinement import crf as crf_lib
from minmax_jax.refinement.options import RefineOptions
from minmax_jax.training import optimizers, schedules
from minmax_jax.training.state import TrainState

_ALL_LOCATIONS = 2**31 - 1  # more than any map has


def create_method(
    config: ml_collections.ConfigDict,
    *,
    num_classes: int,
    steps_per_epoch: int,
    background_classes: tuple[int, ...] = (),
) -> Method:
    """The method that `config.method` names, as its entry in `METHODS` creates it.

    Args:
        config: with all fields. For a saved model, those that its card holds, and the defaults of all others.
        num_classes: C.
        steps_per_epoch: of the training; prediction does not depend on it.
        background_classes: those without a region.
    """
    return METHODS[config.method](
        config, num_classes=num_classes, steps_per_epoch=steps_per_epoch, background_classes=background_classes
    )


def _create_minmax(config: ml_collections.ConfigDict, **of_data: Any) -> Method:
    create = functools.partial(minmax.create_method, accumulation=config.train.accumulation)
    return _create_on_networks(create, config, **of_data)


def _create_localizer_alone(config: ml_collections.ConfigDict, **of_data: Any) -> Method:
    if config.train.accumulation > 1:
        raise errors.OptionError(
            f"config.train.accumulation={config.train.accumulation} is for config.method=minmax, not {config.method}."
        )
    return _create_on_networks(localizer_alone.create_method, config, **of_data)


# By the name of `config.method`: (config, *, num_classes, steps_per_epoch, background_classes) -> Method. Training, the
# checks of a configuration, and all that opens a saved model read this table.
METHODS: dict[str, Callable[..., Method]] = {
    "minmax": _create_minmax,
    "wildcat": _create_localizer_alone,
    "cam": _create_localizer_alone,
}


def _create_on_networks(
    create: Callable[..., Method],
    config: ml_collections.ConfigDict,
    *,
    num_classes: int,
    steps_per_epoch: int,
    background_classes: tuple[int, ...],
) -> Method:
    """A method of localizer and classifier."""
    flips = config.evaluation.flips
    if config.model.mask_head and (config.method, config.mask.gradient) != ("minmax", "flow"):
        raise errors.OptionError(
            f"config.model.mask_head=True learns through config.mask.gradient='flow' of config.method='minmax', not"
            f" {config.mask.gradient!r} of {config.method!r}."
        )
    return create(
        create_model(config.model, num_classes=num_classes, method=config.method, alignment=config.mask.alignment),
        create_optimizer(config, steps_per_epoch=steps_per_epoch),
        create_objective(config, steps_per_epoch=steps_per_epoch, background_classes=background_classes),
        average_decay=config.train.average_decay,
        shared_statistics=config.model.shared_statistics,
        flip_horizontal=flips and config.data.flip_horizontal,
        flip_vertical=flips and config.data.flip_vertical,
        scales=tuple(config.evaluation.scales),
    )


def create_model(
    model: ml_collections.ConfigDict, *, num_classes: int, method: str = "minmax", alignment: str = "corners"
) -> minmax_net.MinMaxNet:
    """Localizer and classifier, without parameters.

    Args:
        model: group `model` of a configuration.
        num_classes: C.
        method: "cam" pools one map per class by its mean; any other pools as the group says.
        alignment: where the features lie, as in `masks.foreground_masks`.
    """
    pooling = dict(modalities=model.modalities, k_max=model.k_max, k_min=model.k_min, alpha=model.alpha)
    if method == "cam":
        pooling = dict(modalities=1, k_max=_ALL_LOCATIONS, alpha=0.0)
    dtype = jnp.dtype(model.dtype)
    create_trunk = functools.partial(_create_trunk, model, dtype)
    with errors.naming("config.model."):
        return minmax_net.create_model(
            create_trunk(),
            num_classes=num_classes,
            mask_head=mask_head.MaskHead(alignment=alignment) if model.mask_head else None,
            classifier_trunk=create_trunk() if model.separate_trunks else None,
            classifier_scale=model.classifier_scale,
            dropout=model.dropout,
            dtype=dtype,
            **pooling,
        )


def _create_trunk(model: ml_collections.ConfigDict, dtype: jnp.dtype) -> nn.Module:
    shared = dict(
        unbiased_variance=model.unbiased_variance,
        remat=model.remat,
        norm_axis=devices.AXIS if model.cross_replica_norm else None,
        dtype=dtype,
    )
    if model.trunk in efficientnet_lite.TRUNKS:
        return efficientnet_lite.TRUNKS[model.trunk](
            output_stride=model.output_stride or 32, frozen_norm=model.frozen_norm, **shared
        )
    if model.output_stride or model.frozen_norm:
        raise errors.OptionError(
            f"output_stride={model.output_stride} and frozen_norm={model.frozen_norm} are for EfficientNet-Lite trunks,"
            f" not {model.trunk}; residual trunks have resnet.stage_strides."
        )
    if model.trunk in vit.TRUNKS:
        return vit.TRUNKS[model.trunk](dtype=dtype)
    options = {"stage_sizes": tuple(model.resnet.stage_sizes)} if model.resnet.stage_sizes else {}
    return resnet.TRUNKS[model.trunk](
        stem=model.resnet.stem,
        width=model.resnet.width,
        stage_strides=tuple(model.resnet.stage_strides),
        **shared,
        **options,
    )


def load_pretrained(config: ml_collections.ConfigDict, state: TrainState) -> TrainState:
    """The state with the pretrained trunk of `config.model.pretrained`, if there is one.

    Raises:
        ConfigError: if the file cannot be used, or does not fit the trunk.
    """
    if not config.model.pretrained:
        return state
    families = (efficientnet_lite.TRUNKS, interop.efficientnet_lite), (vit.TRUNKS, interop.vit)
    family = next((family for names, family in families if config.model.trunk in names), interop.resnet)
    path = config.model.pretrained
    try:
        if path == "imagenet":
            path = interop.efficientnet_lite.find_file(config.model.trunk)
        path = local_path("config.model.pretrained", path)
        variables = interop.load_trunk(interop.read_tensors(path), state.variables, family=family)
    except interop.InteropError as error:
        sources = "" if config.model.pretrained == "imagenet" or path.exists() else f" {family.SOURCES}"
        raise errors.ConfigError(f"config.model.pretrained={config.model.pretrained!r}: {error}{sources}") from error
    average = state.average and jax.tree.map(jnp.copy, variables)
    return devices.replicate(state.replace(**variables, average=average))


def create_objective(
    config: ml_collections.ConfigDict, *, steps_per_epoch: int, background_classes: tuple[int, ...] = ()
) -> objective_lib.Objective:
    """The objective, each option group from the configuration's group of the same name."""
    with errors.naming("config.loss."):
        loss = objective_lib.LossOptions(**config.loss)
    with errors.naming("config.mask."):
        mask = objective_lib.MaskOptions(**config.mask)
    with errors.naming("config.erasing."):
        erasing = objective_lib.ErasingOptions(**config.erasing)
    with errors.naming("config."):
        return objective_lib.Objective(loss, mask, erasing, steps_per_epoch, background_classes)


def create_optimizer(config: ml_collections.ConfigDict, *, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer with its learning-rate schedule."""
    rate, optimizer = dict(config.learning_rate), dict(config.optimizer)
    with errors.naming("config.learning_rate."):
        learning_rate = schedules.create_learning_rate(
            rate.pop("schedule"), epochs=config.train.epochs, steps_per_epoch=steps_per_epoch, **rate
        )
    with errors.naming("config.optimizer."):
        return optimizers.create_optimizer(optimizer.pop("name"), learning_rate, **optimizer)


def create_refine_options(refine: ml_collections.ConfigDict) -> RefineOptions:
    """Options of the second stage, from group `refine` of a configuration, enabled or not."""
    with errors.naming("config.refine."):
        return RefineOptions(**{name: value for name, value in refine.items() if name != "enabled"})


def create_decoder(refine: ml_collections.ConfigDict, *, trunk: str) -> decoder_lib.Decoder:
    """The decoder of the second stage, without parameters.

    Args:
        refine: group `refine` of a configuration.
        trunk: name of the trunk that it reads.
    """
    return decoder_lib.Decoder(width=refine.width, alignment="patches" if trunk in vit.TRUNKS else "features")


def create_refined_predict(
    predict: Callable[..., Prediction],
    stages: Callable[..., Stages],
    refine: ml_collections.ConfigDict,
    *,
    trunk: str,
    background_classes: tuple[int, ...] = (),
    flip_horizontal: bool,
    flip_vertical: bool,
) -> Callable[..., Prediction]:
    """`refined_inference.predict` of a first stage.

    Args:
        predict: of the method.
        stages: of the method.
        refine: group `refine` of a configuration.
        trunk: name of the trunk.
        background_classes: as in `refined_inference.predict`.
        flip_horizontal: as in `refined_inference.predict`.
        flip_vertical: as in `refined_inference.predict`.
    """
    return functools.partial(
        refined_inference.predict,
        first_stage=predict,
        stages=stages,
        decoder=create_decoder(refine, trunk=trunk),
        background_classes=background_classes,
        flip_horizontal=flip_horizontal,
        flip_vertical=flip_vertical,
    )


def create_postprocessing(crf: ml_collections.ConfigDict, refine: ml_collections.ConfigDict) -> crf_lib.RefineFn | None:
    """What becomes of a mask at the end: calibrated if a second stage predicts it, refined by a CRF if one is enabled.

    Args:
        crf: group `evaluation.crf` of a configuration.
        refine: its group `refine`; enabled or not, see there.
    """
    steps = []
    if refine.enabled:
        calibrate = calibration.CALIBRATIONS[refine.calibration]
        steps.append(lambda mask, image: calibrate(mask))
    if crf.enabled:
        steps.append(create_refine(crf))
    if not steps:
        return None
    return lambda mask, image: functools.reduce(lambda mask, step: step(mask, image), steps, mask)


def create_refine(options: ml_collections.ConfigDict) -> crf_lib.RefineFn:
    """The CRF for one mask and its image, compiled once per size; an empty mask remains as it is.

    Args:
        options: group `evaluation.crf` of a configuration, enabled or not.
    """
    with errors.naming("config.evaluation.crf."):
        crf = crf_lib.Crf(**{name: value for name, value in options.items() if name != "enabled"})
    refine = jax.jit(functools.partial(crf_lib.refine, crf=crf))

    def refine_one(mask, image):
        return np.asarray(refine(mask[None, :, :, None], image[None]))[0, :, :, 0] if mask.any() else mask

    return refine_one
