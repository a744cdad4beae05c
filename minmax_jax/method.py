"""The contract between a method and everything that trains, evaluates and reports it.

A method is one file with a function that returns a `Method`, and one entry in the table of methods
(`minmax_jax.runs.building.methods.METHODS`). This module imports nothing of the project.
"""

from collections.abc import Callable, Mapping
import dataclasses
import types
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np

# The state of a training: a dataclass of Flax with "step", "params" and "batch_stats", such as `TrainState`.
State = Any
# Arrays by name, with those of the model in nested dictionaries.
Variables = dict[str, Any]
# Features of a trunk: {output stride: [B, h, w, K]}.
Stages = Mapping[int, jax.Array]
# (variables, images [B, H, W, 3] uint8) -> masks [B, H, W, 1].
PredictMasks = Callable[[Variables, jax.Array], jax.Array]
# Post-processing of one mask: ([H, W] mask, [H, W, 3] image) -> [H, W] mask.
RefineFn = Callable[[np.ndarray, np.ndarray], np.ndarray]

KINDS = ("number", "entropy", "class")
# Scores that no method declares: `training.views` adds the first where it averages several views, the second stage the
# second.
DISAGREEMENT, SPREAD = "view_disagreement", "mask_spread"


@flax.struct.dataclass
class Prediction:
    """What every method answers for a batch of images.

    Attributes:
        probabilities: [B, C] of the classes; the most probable is the predicted class.
        masks: [B, H, W, 1] soft foreground masks in [0, 1]; 0 everywhere where that class has no region.
        scores: further numbers per image by name, [B] each, such as entropies. `Method.scores` says what they mean.

    Example:
        >>> import numpy as np
        >>> from minmax_jax import method
        >>> prediction = method.Prediction(np.array([[0.2, 0.8]]), masks=np.zeros((1, 32, 32, 1)), scores={})
        >>> prediction.probabilities.argmax(-1).tolist()
        [1]
    """

    probabilities: jax.Array
    masks: jax.Array
    scores: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Score:
    """What a number per image means: the log, results, report, flags, tables and exported files read it from here.

    Attributes:
        title: its name in tables and charts, such as "foreground entropy".
        description: a sentence for those who read an exported model.
        kind: "number"; "entropy" of the C classes, which is also given as a share of its maximum log C; or "class", the
            index of a class that another part of the method predicts, whose error is reported.
        unit: such as "nats" or "%".
        needs_region: whether it has no meaning for an image that is predicted to have no region; it is None there.
        low: below it, the mask is not to be trusted; of an entropy, as a share of log C.
        high: above it, the mask is not to be trusted; of an entropy, as a share of log C.
        flag: why not, for the user. "{region}" becomes "found region", or "image" where there is no region. That of a
            "class" is raised where it is not the predicted class; "" raises none.

    Raises:
        ValueError: for an unknown kind.
    """

    title: str
    description: str = ""
    kind: str = "number"
    unit: str = ""
    needs_region: bool = False
    low: float = -np.inf
    high: float = np.inf
    flag: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} must be one of {', '.join(map(repr, KINDS))}.")

    def describe(self) -> dict[str, str]:
        """What `results.json` says of it."""
        return {name: getattr(self, name) for name in ("title", "description", "kind", "unit")}


def masks_alone(predict: Callable[[Variables, jax.Array], Prediction]) -> PredictMasks:
    """The masks of a `Method.predict`.

    Args:
        predict: where it is not compiled yet, its compilation leaves out what masks do not need, such as the passes of
            a classifier.
    """
    return lambda variables, images: predict(variables, images).masks


NO_SCORES: Mapping[str, Score] = types.MappingProxyType({})


def error_name(name: str) -> str:
    """The metric of a score of kind "class": "localizer_class" gives "localizer_classification_error"."""
    return f"{name.removesuffix('_class')}_classification_error"


@flax.struct.dataclass
class RecordedPass:
    """Pass r of a method that erases from B images what it has found, for pictures.

    Attributes:
        images: [B, H, W, 3] X_r, as the passes before left them.
        masks: [B, H, W, 1] M_r, what this pass found, neither weighted nor accumulated.
        trust: [B] weight of these masks; 0 where this pass or one before named a wrong class, or the loss exceeds the
            first.
        losses: [B] cross entropy l_r in nats.
    """

    images: jax.Array
    masks: jax.Array
    trust: jax.Array
    losses: jax.Array


class Method(NamedTuple):
    """A method of weakly supervised localization: three functions, and what their numbers mean.

    Attributes:
        init: (rng, image_size) -> state.
        train_step: (state, batch, *, axis_name) -> (state, metrics); metrics are scalars with "loss" and
            "classification_error" among them.
        predict: (variables, images [B, H, W, 3] uint8) -> Prediction; variables as of `state.inference_variables`.
        log_terms: metrics of `train_step` that the log line and the report show besides "loss", in this order.
        scores: the meaning of each of `Prediction.scores`, in the order of tables. A score that is not here is written
            for each image, and no more.
        title: the method in a model card, with its source.
        cite: text and URL of the publication that the description of an exported model cites. The BioImage model zoo
            asks for one: without it, ONNX files get no `rdf.yaml`.
        classify: (variables, [B, H, W, 4]: images in [-1, 1], then masks) -> [B, C] probabilities given what the masks
            show, of methods that have such a classifier. The swap test of `evaluation.diagnosis` needs it.
        stages: (variables, images [B, H, W, 3] uint8 or in [-1, 1]) -> `Stages`, of methods that have a trunk. The
            second stage, `minmax_jax.refinement`, needs them.
        record_erasing: (variables, images [B, H, W, 3] uint8, labels [B]) -> the passes of recursive erasing, of
            methods that train with it. For pictures.
        reads_canvases: whether `predict`, `classify` and `stages` take an `ops.canvas.Canvas` in place of images, and
            answer as they do for each of its images alone. Photographs of all sizes then share a few compiled programs.

    Example:
        A method that learns nothing; `tests/test_method.py` has one that does.

        >>> import numpy as np
        >>> from minmax_jax import method
        >>> def predict(variables, images):
        ...     probabilities = np.tile(variables["probabilities"], (len(images), 1))
        ...     return method.Prediction(probabilities, np.ones((*images.shape[:3], 1)), scores={})
        >>> def train_step(state, batch, *, axis_name):
        ...     return state, {"loss": 0.0, "classification_error": 100.0}
        >>> constant = method.Method(lambda rng, image_size: None, train_step, predict, log_terms=())
        >>> constant.predict({"probabilities": np.array([0.9, 0.1])}, np.zeros((2, 32, 32, 3), np.uint8)).masks.shape
        (2, 32, 32, 1)
    """

    init: Callable[[jax.Array, tuple[int, int]], State]
    train_step: Callable[..., tuple[State, dict[str, jax.Array]]]
    predict: Callable[[Variables, jax.Array], Prediction]
    log_terms: tuple[str, ...] = ()
    scores: Mapping[str, Score] = NO_SCORES
    title: str = ""
    cite: tuple[str, str] | None = None
    classify: Callable[[Variables, jax.Array], jax.Array] | None = None
    stages: Callable[[Variables, jax.Array], Stages] | None = None
    record_erasing: Callable[[Variables, jax.Array, jax.Array], list[RecordedPass]] | None = None
    reads_canvases: bool = False
