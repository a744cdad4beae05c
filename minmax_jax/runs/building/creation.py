"""From options to networks, and to the method that trains them. No dataset is needed."""

from collections.abc import Callable
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from minmax_jax import interop
from minmax_jax.base import errors
from minmax_jax.base.errors import OptionError
from minmax_jax.base.paths import local_path
from minmax_jax.distributed import devices
from minmax_jax.method import Method, Prediction, RefineFn
from minmax_jax.models import decoder as decoder_lib
from minmax_jax.models import efficientnet_lite, heads, mask_head, minmax_net, resnet, vit
from minmax_jax.refinement import crf as crf_lib
from minmax_jax.refinement import refined_inference
from minmax_jax.runs.building import methods
from minmax_jax.runs.building.groups import ModelOptions
from minmax_jax.runs.building.options import RunOptions
from minmax_jax.training.setup import Setup
from minmax_jax.training.state import TrainState


def create_method(
    options: RunOptions, *, num_classes: int, steps_per_epoch: int, background_classes: tuple[int, ...] = ()
) -> Method:
    """The method that the options name, as its entry in `methods.METHODS` creates it.

    Args:
        options: of the run.
        num_classes: C.
        steps_per_epoch: of the training; prediction does not depend on it.
        background_classes: those without a region.
    """
    rate = options.learning_rate.create(epochs=options.train.epochs, steps_per_epoch=steps_per_epoch)
    setup = Setup(
        create_model=functools.partial(
            create_model, options.model, num_classes=num_classes, alignment=options.mask.alignment
        ),
        tx=options.optimizer.create(rate, frozen_modules=_frozen_modules(options.model)),
        num_classes=num_classes,
        steps_per_epoch=steps_per_epoch,
        background_classes=background_classes,
        accumulation=options.train.accumulation,
        average_decay=options.train.average_decay,
        shared_statistics=options.model.shared_statistics,
        views=options.views,
    )
    return methods.METHODS[options.method].create(options.method_options, setup)


def create_model(
    model: ModelOptions, head: type[nn.Module] | None = None, *, num_classes: int, alignment: str = "corners"
) -> minmax_net.MinMaxNet:
    """Localizer and classifier, without parameters.

    Args:
        model: options of the networks.
        head: class of the heads, with the attributes num_classes and dtype, and dropout if it has one; None: WILDCAT as
            the options say.
        num_classes: C.
        alignment: where the features lie, as in `masks.MaskOptions`.

    Raises:
        OptionError: for dropout with a head that has none, and for options that do not fit each other.
    """
    dtype = jnp.dtype(model.dtype)
    create_trunk = functools.partial(_create_trunk, model, dtype)
    with errors.naming("config.model."):
        head = _choose_head(model, head)
        return minmax_net.create_model(
            create_trunk(),
            num_classes=num_classes,
            mask_head=mask_head.MaskHead(alignment=alignment) if model.mask_head else None,
            classifier_trunk=create_trunk() if model.separate_trunks else None,
            classifier_scale=model.classifier_scale,
            head=functools.partial(head, dtype=dtype),
        )


def _choose_head(model: ModelOptions, head: type[nn.Module] | None) -> Callable[..., nn.Module]:
    """The class of the heads with what the options say of it."""
    if head is None:
        return functools.partial(
            heads.WildcatHead,
            modalities=model.modalities,
            k_max=model.k_max,
            k_min=model.k_min,
            alpha=model.alpha,
            dropout=model.dropout,
        )
    if "dropout" in head.__dataclass_fields__:
        return functools.partial(head, dropout=model.dropout)
    if model.dropout:
        raise OptionError(f"dropout={model.dropout} is not for {head.__name__}; set it to 0.")
    return head


def _create_trunk(model: ModelOptions, dtype: jnp.dtype) -> nn.Module:
    shared = dict(
        unbiased_variance=model.unbiased_variance,
        remat=model.remat,
        norm_axis=devices.AXIS if model.cross_replica_norm else None,
        dtype=dtype,
    )
    if model.trunk in efficientnet_lite.TRUNKS:
        # `load_pretrained` replaces all kernels.
        drawn = {"kernel_init": nn.initializers.zeros} if model.pretrained else {}
        return efficientnet_lite.TRUNKS[model.trunk](
            output_stride=model.output_stride or 32,
            frozen_norm=model.frozen_norm,
            frozen_stride=model.frozen_stride,
            **shared,
            **drawn,
        )
    if model.trunk in vit.TRUNKS:
        return vit.TRUNKS[model.trunk](dtype=dtype)
    sizes = {"stage_sizes": model.resnet.stage_sizes} if model.resnet.stage_sizes else {}
    return resnet.TRUNKS[model.trunk](
        stem=model.resnet.stem,
        width=model.resnet.width,
        stage_strides=model.resnet.stage_strides,
        **shared,
        **sizes,
    )


def _frozen_modules(model: ModelOptions) -> tuple[str, ...]:
    return getattr(_create_trunk(model, jnp.dtype(model.dtype)), "frozen_modules", ())


def load_pretrained(model: ModelOptions, state: TrainState) -> TrainState:
    """The state with the pretrained trunk of `model.pretrained`, if there is one.

    Raises:
        ConfigError: if the file cannot be used, or does not fit the trunk.
    """
    if not model.pretrained:
        return state
    families = (efficientnet_lite.TRUNKS, interop.efficientnet_lite), (vit.TRUNKS, interop.vit)
    family = next((family for names, family in families if model.trunk in names), interop.resnet)
    path = model.pretrained
    try:
        if path == "imagenet":
            path = interop.efficientnet_lite.find_file(model.trunk)
        path = local_path("config.model.pretrained", path)
        variables = interop.load_trunk(interop.read_tensors(path), state.variables, family=family)
    except interop.InteropError as error:
        sources = "" if model.pretrained == "imagenet" or path.exists() else f" {family.SOURCES}"
        raise errors.ConfigError(f"config.model.pretrained={model.pretrained!r}: {error}{sources}") from error
    average = state.average and jax.tree.map(jnp.copy, variables)
    return devices.replicate(state.replace(**variables, average=average))


def create_decoder(trunk: str) -> decoder_lib.Decoder:
    """The decoder of the second stage, without parameters, on a trunk of that name."""
    return decoder_lib.Decoder(alignment="patches" if trunk in vit.TRUNKS else "features")


def create_refined_predict(
    options: RunOptions, method: Method, *, background_classes: tuple[int, ...] = ()
) -> Callable[..., Prediction]:
    """`refined_inference.predict` on the first stage of a run.

    Args:
        options: of the run.
        method: its first stage.
        background_classes: those without a region.
    """
    return functools.partial(
        refined_inference.predict,
        first_stage=method.predict,
        stages=method.stages,
        decoder=create_decoder(options.model.trunk),
        background_classes=background_classes,
        views=dataclasses.replace(options.views, scales=(1.0,)),
    )


def create_crf(options: crf_lib.Crf) -> RefineFn:
    """The CRF for one mask and its image, compiled once per size; an empty mask remains as it is."""
    refine = jax.jit(functools.partial(crf_lib.refine, crf=options))

    def refine_one(mask, image):
        return np.asarray(refine(mask[None, :, :, None], image[None]))[0, :, :, 0] if mask.any() else mask

    return refine_one
