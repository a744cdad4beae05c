"""From a configuration to the things that a run is made of. The fields are described in configs/common.py."""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from minmax_jax import crf as crf_lib
from minmax_jax import inference, interop, optimizers, schedules
from minmax_jax import objective as objective_lib
from minmax_jax import state as state_lib
from minmax_jax.data import dataset
from minmax_jax.distributed import pmap
from minmax_jax.evaluation import evaluate
from minmax_jax.models import minmax_net, resnet
from minmax_jax.runs import build_data, config_checks


@dataclasses.dataclass(frozen=True)
class Parts:
    """What training and evaluation of a configuration share.

    Attributes:
        splits: "train", "validation" and "test".
        steps_per_epoch: whole batches in the training split, at least 1.
        model: the networks.
        objective: what is minimised.
        tx: the optimizer.
        localize: (state, images) -> Localization, on the devices of this host.
        refine: the CRF for the masks of tests, as `create_refine` makes it, or None; validations do without.
        state: fresh, on all devices.
    """

    splits: dict[str, dataset.Split]
    steps_per_epoch: int
    model: minmax_net.MinMaxNet
    objective: objective_lib.Objective
    tx: optax.GradientTransformation
    localize: Callable[[state_lib.TrainState, jax.Array], inference.Localization]
    refine: evaluate.RefineFn | None
    state: state_lib.TrainState


def create_parts(config: ml_collections.ConfigDict) -> Parts:
    """All parts, the configuration checked.

    Raises:
        ValueError: for a field or a dataset that cannot be used.
    """
    config_checks.check_values(config, num_devices=jax.device_count(), num_local_devices=jax.local_device_count())
    splits = build_data.create_splits(config)
    steps_per_epoch = max(1, len(splits["train"]) // config.batch_size)
    model = create_model(config, num_classes=len(splits["train"].class_names))
    with config_checks.naming("config.loss, config.mask, config.erasing"):
        objective = create_objective(config, steps_per_epoch=steps_per_epoch)
    with config_checks.naming("config.optimizer, config.learning_rate"):
        tx = create_optimizer(config, steps_per_epoch=steps_per_epoch)
    state = state_lib.create_train_state(
        jax.random.key(config.seed),
        model=model,
        tx=tx,
        image_size=build_data.crop_size(config.data, splits["train"]),
        shared_statistics=config.model.shared_statistics,
        average=config.train.average_decay > 0,
    )
    localize = create_localize(
        model,
        objective,
        flip_horizontal=config.evaluation.flips and config.data.flip_horizontal,
        flip_vertical=config.evaluation.flips and config.data.flip_vertical,
    )
    return Parts(
        splits=splits,
        steps_per_epoch=steps_per_epoch,
        model=model,
        objective=objective,
        tx=tx,
        localize=pmap.pmap_localize(localize),
        refine=create_refine(config) if config.evaluation.crf.enabled else None,
        state=pmap.replicate(state),
    )


def create_model(config: ml_collections.ConfigDict, *, num_classes: int) -> minmax_net.MinMaxNet:
    """Localizer and classifier; the trunk's parameters are not made yet."""
    model, dtype = config.model, jnp.dtype(config.model.dtype)
    options = {"width": model.width, "stage_strides": tuple(model.stage_strides), "dtype": dtype}
    if model.stage_sizes:
        options["stage_sizes"] = tuple(model.stage_sizes)
    create_trunk = functools.partial(
        resnet.TRUNKS[model.trunk],
        stem=model.stem,
        unbiased_variance=model.unbiased_variance,
        remat=model.remat,
        norm_axis=pmap.AXIS if model.cross_replica_norm else None,
        **options,
    )
    return minmax_net.create_model(
        create_trunk(),
        num_classes=num_classes,
        classifier_trunk=create_trunk() if model.separate_trunks else None,
        classifier_scale=model.classifier_scale,
        modalities=model.modalities,
        k_max=model.k_max,
        k_min=model.k_min,
        alpha=model.alpha,
        dropout=model.dropout,
        dtype=dtype,
    )


def load_pretrained(config: ml_collections.ConfigDict, state: state_lib.TrainState) -> state_lib.TrainState:
    """The state with the pretrained trunk of `config.model.pretrained`, if there is one.

    Raises:
        ConfigError: if the file cannot be used, or does not fit the trunk.
    """
    if not config.model.pretrained:
        return state
    with config_checks.naming(f"config.model.pretrained={config.model.pretrained!r}"):
        variables = interop.load_trunk(interop.read_tensors(config.model.pretrained), state.variables)
    average = state.average and jax.tree.map(jnp.copy, variables)
    return pmap.replicate(state.replace(**variables, average=average))


def create_objective(config: ml_collections.ConfigDict, *, steps_per_epoch: int) -> objective_lib.Objective:
    """The objective, its schedules turned from epochs to steps.

    Raises:
        ValueError: for an unknown option.
    """
    loss, mask, erasing = config.loss, config.mask, config.erasing
    growth = optax.exponential_decay(
        loss.barrier_t, 1, loss.barrier_factor, staircase=True, end_value=loss.barrier_limit
    )
    sigma = mask.sigma
    if mask.sigma_growth:
        rise_epochs = round((mask.sigma_limit - mask.sigma) / mask.sigma_growth)
        sigma = schedules.by_epoch(optax.linear_schedule(mask.sigma, mask.sigma_limit, rise_epochs), steps_per_epoch)
    return objective_lib.Objective(
        background_loss=loss.background,
        background_weight=loss.background_weight,
        size_weight=loss.size_weight,
        size_bounds=None if tuple(loss.size_bounds) == (0.0, 1.0) else tuple(loss.size_bounds),
        barrier_t=schedules.by_epoch(growth, steps_per_epoch),
        sigma=sigma,
        omega=mask.omega,
        mask_normalization=mask.normalization,
        mask_gradient=mask.gradient,
        mask_alignment=mask.alignment,
        num_erasures=erasing.num_erasures,
        erasing_start=erasing.start_epoch * steps_per_epoch,
        erasing_decay=erasing.decay,
        erased_loss_weight=erasing.loss_weight,
    )


def create_optimizer(config: ml_collections.ConfigDict, *, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer with its schedule.

    Raises:
        ValueError: for an unknown option.
    """
    rate = dict(config.learning_rate)
    learning_rate = optimizers.create_learning_rate(
        rate.pop("schedule"), epochs=config.train.epochs, steps_per_epoch=steps_per_epoch, **rate
    )
    options = dict(config.optimizer)
    return optimizers.create_optimizer(options.pop("name"), learning_rate, **options)


def create_localize(
    model: minmax_net.MinMaxNet,
    objective: objective_lib.Objective,
    *,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
):
    """Inference with the masks of training: (state, images) -> Localization. Flips are as of `inference.localize`."""

    def localize(state: state_lib.TrainState, images: jax.Array) -> inference.Localization:
        return inference.localize(
            state.params,
            state.batch_stats,
            images,
            model=model,
            # That of the last step that trained this state.
            sigma=schedules.at(objective.sigma, jnp.maximum(state.step - 1, 0)),
            omega=objective.omega,
            alignment=objective.mask_alignment,
            flip_horizontal=flip_horizontal,
            flip_vertical=flip_vertical,
        )

    return localize


def create_crf(config: ml_collections.ConfigDict) -> crf_lib.Crf:
    """The CRF of the evaluation, enabled or not."""
    return crf_lib.Crf(**{name: value for name, value in config.evaluation.crf.items() if name != "enabled"})


def create_refine(config: ml_collections.ConfigDict) -> evaluate.RefineFn:
    """The CRF on one mask and its image, compiled once for each size."""
    refine = jax.jit(functools.partial(crf_lib.refine, crf=create_crf(config)))
    return lambda mask, image: np.asarray(refine(mask[None, :, :, None], image[None]))[0, :, :, 0]
