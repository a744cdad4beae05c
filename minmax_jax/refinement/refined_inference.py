"""Inference of the second stage: classes of the first, masks of the decoder."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from minmax_jax.method import SPREAD, Prediction
from minmax_jax.models import decoder as decoder_lib
from minmax_jax.models import trunks
from minmax_jax.ops import canvas, order_statistics
from minmax_jax.training import views as views_lib
from minmax_jax.training.views import ONE, Views


def predict(
    variables: dict[str, Any],
    images: canvas.Images,
    *,
    first_stage: Callable[[dict[str, Any], jax.Array], Prediction],
    stages: Callable[[dict[str, Any], jax.Array], trunks.Stages],
    decoder: decoder_lib.Decoder,
    background_classes: Sequence[int] = (),
    views: Views = ONE,
) -> Prediction:
    """The prediction of the first stage with the decoder's masks, not yet calibrated.

    The score `method.SPREAD` is that of these masks: calibration stretches what is nearly constant as well. Where
    they are means over mirror images, their disagreement takes the place of the first stage's, as a share of the
    spread.

    Args:
        variables: of the first stage, and the decoder's parameters as "decoder".
        images: [B, H, W, 3] uint8, or a `Canvas`.
        first_stage: a method's predict.
        stages: a method's stages.
        decoder: the network.
        background_classes: those without a region: their masks are empty.
        views: mirror images that masks are means over.
    """
    prediction = first_stage(variables, images)
    _, sizes = canvas.split(images)

    def predict_view(images):
        chosen = decoder_lib.select_stages(stages(variables, images))
        logits = decoder.apply({"params": variables["decoder"]}, chosen, images)
        _, of_view = canvas.split(images)
        return canvas.clear(decoder_lib.enlarge(jax.nn.sigmoid(logits), of_view), of_view), {}

    masks, of_views = views_lib.mean_over_views(predict_view, canvas.normalize(images), views)
    spread = _spread(masks, sizes)
    scores = {name: values / spread for name, values in of_views.items()}
    masks = views_lib.without_background(masks, prediction.probabilities, background_classes)
    return prediction.replace(masks=masks, scores=prediction.scores | scores | {SPREAD: spread})


def _spread(masks: jax.Array, sizes: jax.Array | None) -> jax.Array:
    """[B] distance of the 5th and 95th percentile of [B, H, W, 1] masks; calibration by percentiles makes it 1."""
    low, high = order_statistics.quantiles(masks, (0.05, 0.95), sizes)[..., 0, 0, 0]
    return jnp.maximum(high - low, jnp.finfo(masks.dtype).tiny)
