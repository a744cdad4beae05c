"""The PyTorch network with the shape and the weights of a model of this library. Needs the extra `[torch]`."""

import numpy as np
import torch

from benchmarks import torch_lite, torch_net
import minmax_jax as mm
from minmax_jax import interop
from minmax_jax.models import efficientnet_lite, resnet


def create(model: mm.MinMaxNet, variables: dict, *, sigma: float = 0.5, omega: float = 8.0) -> torch_net.MinMaxNet:
    """The network.

    Args:
        model: on one ResNet with the deep stem, or one EfficientNet-Lite, with heads alike.
        variables: its parameters and its one set of running statistics.
        sigma: threshold of the masks.
        omega: their steepness.
    """
    trunk, head = model.trunk, model.localizer_head
    options = {name: getattr(head, name) for name in ("modalities", "k_max", "k_min", "alpha")}
    options |= {"classifier_scale": model.classifier_scale}
    if isinstance(trunk, efficientnet_lite.EfficientNetLite):
        family, net = interop.efficientnet_lite, torch_lite.LiteNet(head.num_classes, stages=trunk.stages, **options)
    else:
        family = interop.resnet
        net = torch_net.MinMaxNet(
            head.num_classes,
            block=torch_net.Bottleneck if trunk.block is resnet.BottleneckBlock else torch_net.BasicBlock,
            stage_sizes=trunk.stage_sizes,
            stage_strides=trunk.stage_strides,
            width=trunk.width,
            **options,
        )
    tensors = interop.to_published(variables, sigma=sigma, omega=omega, family=family)
    net.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()})
    return net
