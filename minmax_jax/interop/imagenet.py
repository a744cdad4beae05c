"""Classification of images by a network trained on ImageNet: the check that pretrained weights are read right."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np

from minmax_jax.interop import efficientnet_lite as layout
from minmax_jax.interop import tensor_files
from minmax_jax.models import efficientnet_lite
from minmax_jax.models.efficientnet_lite import ImageNetClassifier


def imagenet(images: np.ndarray, *, trunk: str = "efficientnet_lite0") -> np.ndarray:
    """Probabilities of the 1000 classes of ImageNet, in their usual order, [B, 1000].

    Args:
        images: [B, H, W, 3] uint8, RGB; 224 pixels a side suit the network best.
        trunk: "efficientnet_lite0", "efficientnet_lite1" or "efficientnet_lite2".

    Raises:
        InteropError: naming what to install, if the weights are not.

    Example:
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> probabilities = mm.imagenet(np.zeros((1, 64, 64, 3), np.uint8))
        >>> probabilities.shape, round(float(probabilities.sum()), 3)
        ((1, 1000), 1.0)
    """
    net, variables = load(trunk)
    return np.asarray(_classify(net)(variables, np.asarray(images, np.float32) / 127.5 - 1))


@functools.cache
def _classify(net: ImageNetClassifier):
    return jax.jit(lambda variables, images: jax.nn.softmax(net.apply(variables, images)))


@functools.cache
def load(trunk: str) -> tuple[ImageNetClassifier, dict]:
    """A whole network and its variables, from the installed package.

    Raises:
        InteropError: naming what to install.
    """
    tensors = tensor_files.read_tensors(layout.find_file(trunk))
    net = ImageNetClassifier(efficientnet_lite.TRUNKS[trunk]())
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    paths = flax.traverse_util.flatten_dict(shapes)
    return net, flax.traverse_util.unflatten_dict({path: _variable(path, tensors) for path in paths})


def _variable(path: tuple[str, ...], tensors: dict[str, np.ndarray]) -> np.ndarray:
    _, *modules, leaf = path
    if modules == ["dense"]:
        return tensors["_fc.weight"].T if leaf == "kernel" else tensors["_fc.bias"]
    tensor = tensors[layout.tensor_name(modules[1:] if modules[0] == "trunk" else modules, leaf)]
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
