"""Records what the PyTorch peer computes, in double precision, for the tests to compare the library with.

    python -m benchmarks.record_parity

writes tests/recorded/CASE.npz. Weights and images are not in the files: `tests.recorded` draws them from names.
A file holds, images and maps channels-last, B images of C classes, R erasures, T steps on the one batch:

- `case`: JSON of all options, `state_dict_spec`: JSON of [[name, shape], ...], in the order of the state dict;
- `labels` [B];
- of evaluation mode: `eval_localizer_logits` [B, C], `eval_class_maps` [B, h, w, C],
  `eval_mask_batch_normalised` and `eval_mask_image_normalised` [B, H, W]; seen through the batch-normalised mask
  `eval_foreground_logits` and `eval_background_logits` [B, C], `eval_foreground_maps` [B, h, w, C]; means over the
  batch `eval_loss_localizer`, `eval_loss_foreground`, `eval_loss_background`;
- of training, [T]: `train_loss_class_seg` (the localizer's, summed over the passes, divided by R + 1),
  `train_loss_pos`, `train_loss_neg`, `train_total_loss` (their sum), `train_errors` in percent;
- of the first step: `train_num_localizer_passes`, `train_localizer_logits_per_erasure` [passes, B, C],
  `train_foreground_mask` P [B, H, W], and where R > 0 `train_erased_images_last` [B, H, W, 3] X_R;
- (sum, absolute sum, L2 norm) of each tensor: `grad1_summary` (weight decay left out) and `after1_param_summary` in
  the order of `param_names`, `after1_bn_summary` in that of `bn_names`; `after_param_summary` and `after_bn_summary`
  after the last step.

Of full-size arrays the files hold every third row and column (`PIXELS`).
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import torch_net, torch_peer
from minmax_jax.base import strict_json
from tests import recorded

FOLDER = pathlib.Path(recorded.__file__).parent
PIXELS = (slice(None), slice(None, None, 3), slice(None, None, 3))
FULL_SIZE = (
    "eval_mask_batch_normalised",
    "eval_mask_image_normalised",
    "train_foreground_mask",
    "train_erased_images_last",
)
# What the team's published cases leave unsaid.
PUBLISHED = {
    "width": 64,
    "stage_sizes": [2, 2, 2, 2],
    "stage_strides": [1, 2, 2, 2],
    "momentum": 0.9,
    "weight_decay": 1e-5,
}
SMALL = PUBLISHED | {
    "model": "resnet18",
    "width": 16,
    "stage_strides": [1, 2, 1, 1],
    "num_classes": 5,
    "modalities": 5,
    "kmax": 0.09,
    "kmin": 0.0,
    "alpha": 0.0,
    "scale": [0.5, 0.5],
    "sigma": 0.5,
    "w": 8,
    "sigma_erase": 10.0,
    "batch": 3,
    "size": [64, 96],
    "wrong": [2],
    "lr": 0.0002,
    "steps": 3,
}
# Salts with which no value of the first step lies on a kink (ReLU, maximum) within single precision's rounding. With
# four erasures the second pass is right on all images but trusts only the second: the first one's loss rose, and the
# third was wrong before. The third pass is wrong on the first two, and so the last.
CASES = (
    SMALL | {"name": "small_no_erasing", "salt": "e/", "labels": [3, 1, 4], "erase": 0},
    SMALL | {"name": "small_erasing4", "salt": "v/", "labels": [0, 4, 0], "erase": 4},
)


def create_net(case: dict) -> torch_net.MinMaxNet:
    """The network of a case, with weights of PyTorch's own."""
    return torch_net.MinMaxNet(
        case["num_classes"],
        stage_sizes=case["stage_sizes"],
        stage_strides=case["stage_strides"],
        width=case["width"],
        modalities=case["modalities"],
        k_max=case["kmax"],
        k_min=case["kmin"],
        alpha=case["alpha"],
        sigma=case["sigma"],
        omega=case["w"],
        classifier_scale=case["scale"][0],
    )


def layout(net: torch_net.MinMaxNet) -> list:
    """[[name, shape], ...] of the state dict."""
    return [[name, list(tensor.shape)] for name, tensor in net.state_dict().items()]


def compute(case: dict, tensors: dict, images: np.ndarray, labels: np.ndarray, dtype: torch.dtype) -> dict:
    """All recorded quantities, full-size.

    Args:
        case: as in the files.
        tensors: the state dict.
        images: [B, H, W, 3] uint8.
        labels: [B].
        dtype: of the computation.
    """
    net = create_net(case)
    net.load_state_dict({name: torch.from_numpy(np.asarray(tensor)) for name, tensor in tensors.items()})
    net.to(dtype)
    given = torch_net.from_uint8(images, dtype), torch.from_numpy(labels)
    return evaluate(net, *given) | train(net, case, *given)


@torch.no_grad()
def evaluate(net: torch_net.MinMaxNet, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    """The quantities of evaluation mode."""
    net.eval()
    found, by_image = net.localize(images, "batch"), net.localize(images, "image")
    foreground_logits, foreground_maps = net.classify(images * found.masks)
    background_logits, _ = net.classify(images * (1 - found.masks))
    return {
        "eval_localizer_logits": found.logits.numpy(),
        "eval_class_maps": _channels_last(found.maps),
        "eval_mask_batch_normalised": found.masks[:, 0].numpy(),
        "eval_mask_image_normalised": by_image.masks[:, 0].numpy(),
        "eval_foreground_logits": foreground_logits.numpy(),
        "eval_background_logits": background_logits.numpy(),
        "eval_foreground_maps": _channels_last(foreground_maps),
        "eval_loss_localizer": F.cross_entropy(found.logits, labels).numpy(),
        "eval_loss_foreground": F.cross_entropy(foreground_logits, labels).numpy(),
        "eval_loss_background": torch_peer.surrogate(background_logits).mean().numpy(),
    }


def train(net: torch_net.MinMaxNet, case: dict, images: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    """The quantities of training; changes the network."""
    net.train()
    optimizer = torch.optim.SGD(
        net.parameters(), case["lr"], case["momentum"], weight_decay=case["weight_decay"], nesterov=True
    )
    options = {"num_erasures": case["erase"], "trust_decay": case["sigma_erase"]}
    steps = [torch_peer.train_step(net, optimizer, images, labels, **options)]
    first = _first_step(net, steps[0], case["erase"])
    steps += [torch_peer.train_step(net, optimizer, images, labels, **options) for _ in range(case["steps"] - 1)]
    errors = [100 * (step.foreground_logits.argmax(1) != labels).double().mean() for step in steps]
    return first | {
        "train_total_loss": np.array([step.total_loss for step in steps]),
        "train_loss_pos": np.array([step.foreground_loss for step in steps]),
        "train_loss_neg": np.array([step.background_loss for step in steps]),
        "train_loss_class_seg": np.array([step.localizer_loss for step in steps]),
        "train_errors": np.array(errors),
        "after_param_summary": _summaries(dict(net.named_parameters()).values()),
        "after_bn_summary": _summaries(_statistics(net).values()),
    }


def _first_step(net: torch_net.MinMaxNet, step: torch_peer.Step, num_erasures: int) -> dict[str, np.ndarray]:
    params, statistics = dict(net.named_parameters()), _statistics(net)
    erased = {"train_erased_images_last": _channels_last(step.erased_images)} if num_erasures else {}
    return erased | {
        "train_num_localizer_passes": np.int64(step.num_passes),
        "train_localizer_logits_per_erasure": step.localizer_logits.numpy(),
        "train_foreground_mask": step.masks[:, 0].numpy(),
        "param_names": np.array(list(params)),
        "bn_names": np.array(list(statistics)),
        "grad1_summary": _summaries(param.grad for param in params.values()),
        "after1_param_summary": _summaries(params.values()),
        "after1_bn_summary": _summaries(statistics.values()),
    }


def _statistics(net: torch_net.MinMaxNet) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in net.state_dict().items() if ".running_" in name}


def _summaries(tensors) -> np.ndarray:
    """[N, 3] sum, absolute sum and L2 norm."""
    tensors = [tensor.detach().double() for tensor in tensors]
    return np.array([[t.sum(), t.abs().sum(), t.norm()] for t in tensors])


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).numpy()


def record(case: dict) -> dict[str, np.ndarray]:
    """What a file holds."""
    net = create_net(case)
    tensors = recorded.draw_state_dict(layout(net), case["salt"], sigma=case["sigma"], omega=case["w"])
    images = recorded.draw_images(case["salt"], case["batch"], case["size"])
    labels = np.array(case["labels"])
    found = compute(case, tensors, images, labels, torch.float64)
    full_size = {name: found[name][PIXELS] for name in FULL_SIZE if name in found}
    inputs = {"case": strict_json.dumps(case), "state_dict_spec": strict_json.dumps(layout(net)), "labels": labels}
    return found | full_size | {name: np.array(value) for name, value in inputs.items()}


def main() -> None:
    for case in CASES:
        np.savez_compressed(FOLDER / f"{case['name']}.npz", **record(case))


if __name__ == "__main__":
    main()
