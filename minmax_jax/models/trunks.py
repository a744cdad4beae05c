"""What a trunk is: a module from images to the features of its stages."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from minmax_jax.base.errors import OptionError
from minmax_jax.ops import canvas

# {output stride: [B, h, w, K] features}; of several stages with one stride, the last.
Stages = Mapping[int, jax.Array]
# Name of a module in a trunk whose parameters never change: it stops their gradients, and optimizers do not decay them.
FROZEN = "frozen"


def check_module(name: str, module: Any) -> None:
    """Raises OptionError for what is no Linen module.

    An NNX module would run: Linen takes it as a constant, so that its variables are neither trained nor saved.
    """
    if isinstance(module, nn.Module):
        return
    kind = module.__name__ if isinstance(module, type) else type(module).__name__
    if any(base.__module__.startswith("flax.nnx") for base in getattr(module, "__mro__", type(module).__mro__)):
        raise OptionError(
            f"{name}={kind} is an nnx.Module, whose variables a flax.linen module neither trains nor saves. Give"
            f" flax.nnx.bridge.to_linen({kind}, ...), with the arguments of its constructor but for rngs."
        )
    raise OptionError(f"{name}={kind} must be an instance of a flax.linen.Module.")


def reads_canvases(trunk: nn.Module) -> bool:
    """Whether a trunk takes a `Canvas` in place of images: a module that does has an attribute of that name."""
    return getattr(trunk, "reads_canvases", False)


def valid(images: canvas.Images, stages: "Stages | jax.Array") -> dict[str, jax.Array]:
    """What a head is given besides the features of the deepest stage: of a `Canvas`, the images' sizes in them."""
    _, sizes = canvas.split(images)
    return {} if sizes is None else {"sizes": canvas.at_stride(sizes, max(stages))}


def apply(trunk: nn.Module, images: canvas.Images, *, train: bool, needs_strides: bool = False) -> Stages | jax.Array:
    """What a trunk returns for [B, H, W, 3] images: its stages, or the features of its only stage.

    Args:
        trunk: the module.
        images: scaled to [-1, 1]; a `Canvas` for trunks that read it.
        train: whether batch norm uses the statistics of the batch.
        needs_strides: whether features without their output stride are refused.

    Raises:
        OptionError: if it returns anything else.
    """
    stages = trunk(images, train=train)
    if isinstance(stages, Mapping):
        is_right = bool(stages) and all(isinstance(stride, int) and _are_features(x) for stride, x in stages.items())
    else:
        is_right = _are_features(stages) and not needs_strides
    if not is_right:
        raise OptionError(
            f"trunk={type(trunk).__name__} returned {_describe(stages)}; it must return a mapping"
            " {output stride: features [B, h, w, K]}, such as {32: features}."
        )
    return stages


def _are_features(value: Any) -> bool:
    return getattr(value, "ndim", None) == 4


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}: {', '.join(map(_describe, value))}"
    return f"an array {list(value.shape)}" if hasattr(value, "shape") else f"{type(value).__name__}"


def last_features(stages: Stages | jax.Array) -> jax.Array:
    """The [B, h, w, K] features of the deepest stage.

    Args:
        stages: what a trunk returned; an array alone is taken as its only stage.
    """
    return stages[max(stages)] if isinstance(stages, Mapping) else stages
