"""The method's training step in plain PyTorch: the peer in speed, and a second witness of the numbers.

Written from the description of the method, independently of `minmax_jax`; it imports nothing of it. The choices are the
published ones: one trunk and one set of running statistics for all passes, and masks that pass no gradient on. Needs
the extra `[torch]`.

Source: arXiv 1907.12934, sections 3 and 4.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F

from benchmarks import torch_net


def surrogate(logits: torch.Tensor) -> torch.Tensor:
    """Cross entropy from the uniform distribution, [B]."""
    return -logits.log_softmax(1).mean(1)


def explicit(logits: torch.Tensor) -> torch.Tensor:
    """Negative entropy, [B]."""
    return (logits.softmax(1) * logits.log_softmax(1)).sum(1)


BACKGROUND_LOSSES = {"surrogate": surrogate, "explicit": explicit}


@dataclasses.dataclass
class Step:
    """What a training step leaves to look at, all without a gradient.

    Attributes:
        localizer_loss: sum of the passes' losses over R + 1.
        foreground_loss: the classifier's on what was found.
        background_loss: the classifier's on the rest, before its weight.
        total_loss: their sum, the background weighted.
        masks: P, [B, 1, H, W].
        erased_images: the images after the last erasing, [B, 3, H, W].
        localizer_logits: logits of each localizer pass, [passes, B, C].
        foreground_logits: the classifier's logits on what was found, [B, C].
    """

    localizer_loss: torch.Tensor
    foreground_loss: torch.Tensor
    background_loss: torch.Tensor
    total_loss: torch.Tensor
    masks: torch.Tensor
    erased_images: torch.Tensor
    localizer_logits: torch.Tensor
    foreground_logits: torch.Tensor

    @property
    def num_passes(self) -> int:
        return len(self.localizer_logits)


def train_step(
    net: torch_net.MinMaxNet,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    num_erasures: int = 4,
    trust_decay: float = 10.0,
    background_loss: str = "surrogate",
    background_weight: float = 1.0,
    normalization: str = "batch",
) -> Step:
    """One step of the optimizer on the gradients of all passes; `net` must be in training mode.

    Args:
        net: the network; its parameters, gradients and running statistics change.
        optimizer: what turns the summed gradients into a step.
        images: [B, 3, H, W] in [-1, 1].
        labels: [B] classes.
        num_erasures: R; 0 is one localizer pass whose mask is used as it is.
        trust_decay: passes after which trust falls to 1/e.
        background_loss: "surrogate" or "explicit".
        background_weight: its weight in the objective.
        normalization: range of the mask's extremes, "batch" or "image".
    """
    optimizer.zero_grad()
    masks, erased, found_losses, found_logits = erase(net, images, labels, num_erasures, trust_decay, normalization)
    foreground_logits, _ = net.classify(images * masks)
    foreground = F.cross_entropy(foreground_logits, labels)
    background_logits, _ = net.classify(images * (1 - masks))
    background = BACKGROUND_LOSSES[background_loss](background_logits).mean()
    (foreground + background_weight * background).backward()
    optimizer.step()
    localizer, foreground, background = sum(found_losses) / (num_erasures + 1), foreground.detach(), background.detach()
    return Step(
        localizer_loss=localizer,
        foreground_loss=foreground,
        background_loss=background,
        total_loss=localizer + foreground + background_weight * background,
        masks=masks,
        erased_images=erased,
        localizer_logits=torch.stack(found_logits),
        foreground_logits=foreground_logits.detach(),
    )


def erase(net, images, labels, num_erasures, trust_decay, normalization):
    """The localizer's passes, each with its gradient, while some image was classified right in all of them.

    Returns:
        The masks P, the images erased last, and the mean loss and the logits of each pass.
    """
    masks, erased, right = torch.zeros_like(images[:, :1]), images, torch.ones_like(labels, dtype=torch.bool)
    losses, logits = [], []
    for r in range(max(num_erasures, 1)):
        if not right.any():
            break
        found = net.localize(erased, normalization)
        loss = F.cross_entropy(found.logits, labels, reduction="none")
        loss.mean().backward()
        losses.append(loss.detach())
        logits.append(found.logits.detach())
        if num_erasures == 0:
            masks = found.masks
            break
        right = right & (logits[r].argmax(1) == labels)
        trusted = right & (losses[r] <= losses[0])
        trust = math.exp(-r / trust_decay) * logits[r].softmax(1).amax(1) * trusted
        masks = torch.maximum(masks, trust[:, None, None, None] * found.masks)
        erased = torch.where(trusted[:, None, None, None], erased * (1 - masks), erased)
    return masks, erased, [loss.mean() for loss in losses], logits
