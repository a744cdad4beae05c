"""Weakly supervised localization with min-max entropy, in JAX.

The functional API: create a model and a state, train them by a pure step, and localize. Training and localization
run inside `jax.jit`, `jax.pmap` and `lax` loops. `load` opens a model that the training program saved
(`minmax_jax.runs`), `imagenet` reads weights by pip.
"""

from minmax_jax import losses, masks
from minmax_jax.interop.imagenet import imagenet
from minmax_jax.minmax import erasing
from minmax_jax.minmax.inference import Localization, localize
from minmax_jax.minmax.objective import Objective
from minmax_jax.minmax.step import train_step
from minmax_jax.models import heads
from minmax_jax.models.minmax_net import MinMaxNet, create_model
from minmax_jax.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101
from minmax_jax.runs.predictor import load
from minmax_jax.training.optimizers import create_optimizer
from minmax_jax.training.state import TrainState, create_train_state

__all__ = [
    "Localization",
    "MinMaxNet",
    "Objective",
    "ResNet",
    "TrainState",
    "create_model",
    "create_optimizer",
    "create_train_state",
    "erasing",
    "heads",
    "imagenet",
    "load",
    "localize",
    "losses",
    "masks",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "train_step",
]
