"""The localizer without the classifier: WILDCAT (Durand et al., CVPR 2017) and class activation maps (CVPR 2016).

The first things to compare min-max entropy with: the same trunk, head, masks and optimizer, and no term but the cross
entropy of the localizer's logits. Nothing is erased.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from minmax_jax import losses
from minmax_jax.masks import MaskOptions
from minmax_jax.method import Method, Prediction
from minmax_jax.minmax import inference
from minmax_jax.minmax.objective import Objective
from minmax_jax.models import heads
from minmax_jax.models.minmax_net import MinMaxNet
from minmax_jax.ops import canvas
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training import update
from minmax_jax.training import views as views_lib
from minmax_jax.training.setup import Setup
from minmax_jax.training.state import TrainState, create_train_state
from minmax_jax.training.views import ONE, Views

# Titles in the model card of an exported file.
WILDCAT = "WILDCAT (Durand et al., CVPR 2017), a localizer alone,"
CAM = "class activation maps (Zhou et al., CVPR 2016), a localizer alone,"
# Their publications: text and URL.
WILDCAT_CITE = (
    "WILDCAT: Weakly Supervised Learning of Deep ConvNets for Image Classification, Pointwise Localization and"
    " Segmentation (2017)",
    "https://openaccess.thecvf.com/content_cvpr_2017/html/Durand_WILDCAT_Weakly_Supervised_CVPR_2017_paper.html",
)
CAM_CITE = ("Learning Deep Features for Discriminative Localization (2016)", "https://arxiv.org/abs/1512.04150")


@dataclasses.dataclass(frozen=True)
class LocalizerOptions:
    """What a localizer alone reads.

    Attributes:
        mask: how class maps become masks.
    """

    mask: MaskOptions


def create_wildcat(options: LocalizerOptions, setup: Setup) -> Method:
    """WILDCAT, of a run."""
    return _create(options, setup, setup.create_model(), WILDCAT, WILDCAT_CITE)


def create_cam(options: LocalizerOptions, setup: Setup) -> Method:
    """Class activation maps with global average pooling, of a run."""
    return _create(options, setup, setup.create_model(heads.MeanHead), CAM, CAM_CITE)


def _create(options: LocalizerOptions, setup: Setup, model: MinMaxNet, title: str, cite: tuple[str, str]) -> Method:
    objective = Objective(
        mask=options.mask, steps_per_epoch=setup.steps_per_epoch, background_classes=setup.background_classes
    )
    return create_method(
        model,
        setup.tx,
        objective,
        title=title,
        cite=cite,
        average_decay=setup.average_decay,
        shared_statistics=setup.shared_statistics,
        views=setup.views,
    )


def create_method(
    model: MinMaxNet,
    tx: optax.GradientTransformation,
    objective: Objective,
    *,
    title: str = WILDCAT,
    cite: tuple[str, str] = WILDCAT_CITE,
    average_decay: float = 0.0,
    shared_statistics: bool = False,
    views: Views = ONE,
) -> Method:
    """A method that trains and applies the localizer of the networks; their classifier keeps its first parameters.

    Args:
        model: the networks.
        tx: the optimizer.
        objective: its masks and its classes without a region are those of inference.
        title: of the method, which the localizer's head decides.
        cite: text and URL of its publication.
        average_decay: as in `state.update_average`.
        shared_statistics: as in `state.create_train_state`.
        views: test-time augmentation.

    Example:
        It has no classifier, whose terms could be logged:

        >>> import minmax_jax as mm
        >>> from minmax_jax.baselines import localizer_alone
        >>> model = mm.create_model(mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4), num_classes=3)
        >>> found = localizer_alone.create_method(model, mm.create_optimizer("sgd", 0.1), mm.Objective())
        >>> found.log_terms, found.classify
        ((), None)
    """
    return Method(
        init=functools.partial(
            create_train_state, model=model, tx=tx, shared_statistics=shared_statistics, average=average_decay > 0
        ),
        train_step=functools.partial(train_step, model=model, tx=tx, average_decay=average_decay),
        predict=functools.partial(predict, model=model, objective=objective, views=views),
        title=title,
        cite=cite,
        stages=functools.partial(inference.trunk_stages, model=model),
        reads_canvases=model.reads_canvases,
    )


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: MinMaxNet,
    tx: optax.GradientTransformation,
    average_decay: float = 0.0,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates the localizer by one batch.

    Args:
        state: the state before the step.
        batch: "images" [B, H, W, 3], uint8 or scaled to [-1, 1], and "labels" [B]; on each device its share.
        model: the networks.
        tx: the optimizer.
        average_decay: as in `state.update_average`.
        axis_name: mapped axis of the devices that share the batch, or None.

    Returns:
        The state after the step, and means over the whole batch: "loss", "classification_error" in percent,
        "gradient_norm".
    """
    images, labels, sample_keys = update.start_step(state, batch, axis_name)

    def loss_fn(params):
        statistics = stats_lib.read(state.batch_stats, stats_lib.WHOLE)
        (logits, _), updated = update.apply_in_training(
            model, params, statistics, images, sample_keys=sample_keys, method="localize"
        )
        error = 100.0 * jnp.mean(jnp.argmax(logits, axis=-1) != labels, dtype=jnp.float32)
        return jnp.mean(losses.cross_entropy(logits, labels)), (error, updated)

    (loss, (error, updated)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    return update.finish_step(
        state,
        gradients,
        stats_lib.write(state.batch_stats, stats_lib.WHOLE, updated),
        {"loss": loss, "classification_error": error},
        tx=tx,
        average_decay=average_decay,
        axis_name=axis_name,
    )


def predict(
    variables: dict[str, Any],
    images: canvas.Images,
    *,
    model: MinMaxNet,
    objective: Objective,
    views: Views = ONE,
) -> Prediction:
    """Classes and masks of the localizer, as a `Prediction`.

    Args:
        variables: "params", "batch_stats" and the "step" they belong to.
        images: [B, H, W, 3], uint8 or scaled to [-1, 1], or a `Canvas`.
        model: the networks.
        objective: of the training.
        views: test-time augmentation.
    """

    def predict_view(images):
        logits, foreground = inference.localizer_masks(variables, images, model=model, objective=objective)
        return foreground, {"probabilities": jax.nn.softmax(logits)}

    return views_lib.predict(predict_view, images, views=views, background_classes=objective.background_classes)
