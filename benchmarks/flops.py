"""How many operations the networks take by the definition of their layers, whatever forms compute them."""

import dataclasses

import jax
import jax.numpy as jnp

import minmax_jax as mm
from minmax_jax.ops import platforms


@dataclasses.dataclass(frozen=True)
class Flops:
    """Of the forward passes over one image.

    Attributes:
        localizer: at the image's size.
        classifier: at the size that it sees, once.
    """

    localizer: float
    classifier: float

    def inference(self) -> float:
        """Of one image: the localizer, then the classifier on foreground and background."""
        return self.localizer + 2 * self.classifier

    def step(self, num_erasures: int) -> float:
        """Of one image in a training step; a backward pass counts as two forward ones."""
        return 3 * (max(1, num_erasures) * self.localizer + 2 * self.classifier)


def count(model: mm.MinMaxNet, height: int, width: int) -> Flops:
    """Counts on the programs before they are compiled."""
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    masks = jax.ShapeDtypeStruct((1, height, width, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images, masks)

    def of(method, *inputs):
        apply = jax.jit(lambda variables, *inputs: model.apply(variables, *inputs, method=method))
        # For a GPU: on a CPU convolutions are code of our own, whose operations XLA does not know.
        with platforms.for_target("cuda"):
            lowered = apply.trace(variables, *inputs).lower(lowering_platforms=("cuda",))
        return lowered.cost_analysis()["flops"]

    return Flops(localizer=of("localize", images), classifier=of("classify", images, masks))
