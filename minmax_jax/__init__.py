"""Weakly supervised localization with min-max entropy, in JAX.

The functional API: make a model and a state, train it by a pure step, and localize. Everything here runs inside
`jax.jit`, `jax.pmap` and `lax` loops of one's own. The program with datasets, checkpoints and results is
`minmax_jax.runs.training`.
"""

from minmax_jax.inference import Localization, localize
from minmax_jax.models.minmax_net import MinMaxNet, create_model
from minmax_jax.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101
from minmax_jax.objective import Objective
from minmax_jax.optimizers import create_optimizer
from minmax_jax.state import TrainState, create_train_state
from minmax_jax.step import train_step

__all__ = [
    "Localization",
    "MinMaxNet",
    "Objective",
    "ResNet",
    "TrainState",
    "create_model",
    "create_optimizer",
    "create_train_state",
    "localize",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "train_step",
]
