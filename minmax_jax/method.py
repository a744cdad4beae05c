"""The contract between a method and everything that trains, evaluates and reports it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax

from minmax_jax.minmax.recorded_erasing import RecordedPass
from minmax_jax.models.trunks import Stages
from minmax_jax.training.state import TrainState


@flax.struct.dataclass
class Prediction:
    """What every method answers for a batch of images.

    Attributes:
        probabilities: [B, C] of the classes; the most probable is the predicted class.
        masks: [B, H, W, 1] soft foreground masks in [0, 1]; 0 everywhere where that class has no region.
        scores: further numbers per image by name, [B] each, such as entropies.
    """

    probabilities: jax.Array
    masks: jax.Array
    scores: dict[str, jax.Array]


class Method(NamedTuple):
    """A method of weakly supervised localization: three functions and the terms to report.

    Attributes:
        init: (rng, image_size) -> TrainState.
        train_step: (state, batch, *, axis_name) -> (state, metrics); metrics are scalars with "loss" and
            "classification_error" among them.
        predict: (variables, images [B, H, W, 3] uint8) -> Prediction; variables as of `state.inference_variables`.
        log_terms: metrics that the log line shows besides "loss", in this order.
        classify: (variables, [B, H, W, 4]: images in [-1, 1], then masks) -> [B, C] probabilities given what the masks
            show, of methods that have such a classifier. The swap test of `evaluation.diagnosis` needs it.
        stages: (variables, images [B, H, W, 3] uint8 or in [-1, 1]) -> `trunks.Stages`, of methods that have a trunk.
            The second stage, `minmax_jax.refinement`, needs them.
        record_erasing: (variables, images [B, H, W, 3] uint8, labels [B]) -> the passes of recursive erasing, of
            methods that train with it. For pictures.
    """

    init: Callable[[jax.Array, tuple[int, int]], TrainState]
    train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    predict: Callable[[dict[str, Any], jax.Array], Prediction]
    log_terms: tuple[str, ...]
    classify: Callable[[dict[str, Any], jax.Array], jax.Array] | None = None
    stages: Callable[[dict[str, Any], jax.Array], Stages] | None = None
    record_erasing: Callable[[dict[str, Any], jax.Array, jax.Array], list[RecordedPass]] | None = None
