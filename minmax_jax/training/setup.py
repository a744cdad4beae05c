"""What a run hands to its method: everything that methods share, so that a method's options are its own alone."""

from collections.abc import Callable
import dataclasses

import optax

from minmax_jax.models.minmax_net import MinMaxNet
from minmax_jax.training.views import ONE, Views


@dataclasses.dataclass(frozen=True)
class Setup:
    """Networks, optimizer, facts of the data, and test-time augmentation of a run.

    Attributes:
        create_model: (head=None) -> networks on the trunk of the run, for its classes; head: a class of `models.heads`,
            or one with the same interface; None: WILDCAT as the run configures it.
        tx: the optimizer.
        num_classes: C.
        steps_per_epoch: of the training; prediction does not depend on it.
        background_classes: classes without a region.
        accumulation: micro-batches of a training step.
        average_decay: of the moving average of the variables; 0 keeps none.
        shared_statistics: whether all streams of images share one set of running batch-norm statistics.
        views: test-time augmentation.
    """

    create_model: Callable[..., MinMaxNet]
    tx: optax.GradientTransformation
    num_classes: int
    steps_per_epoch: int = 1
    background_classes: tuple[int, ...] = ()
    accumulation: int = 1
    average_decay: float = 0.0
    shared_statistics: bool = False
    views: Views = ONE
