"""The training step against a second implementation of it, in PyTorch, on random small cases.

Both compute in double precision. In single precision rounding alone moves gradients by a percent, where it decides
which side of a kink (ReLU, maximum, the k highest) a value falls on; here it has a hundred million times less to move.
"""

import copy
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax import interop
from tests import networks, recorded

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.witness

from benchmarks import torch_net, torch_peer  # noqa: E402

SEEDS = [pytest.param(seed, marks=[pytest.mark.slow] if seed >= 2 else []) for seed in range(6)]
# Compiling a case takes most of the time: each is tried on several weights, images and labels.
DRAWS = 8
TOLERANCE = 1e-9


def _draw_case(seed: int) -> dict:
    """Options of one case; the six seeds cover R = 0 to 5."""
    rng = np.random.default_rng(seed)

    def share_or_count():
        return rng.choice([rng.uniform(0.05, 0.5), rng.integers(1, 6)])

    return {
        "num_erasures": (0, 4, 2, 5, 1, 3)[seed],
        "normalization": ("batch", "image")[seed % 2],
        "background_loss": ("surrogate", "explicit")[seed // 2 % 2],
        "background_weight": rng.uniform(0.1, 2),
        "batch": int(rng.integers(2, 5)),
        "size": tuple(int(side) for side in rng.integers(32, 72, 2)),
        "num_classes": int(rng.integers(2, 7)),
        # As a state dict keeps them.
        "sigma": float(np.float32(rng.uniform(0.2, 0.6))),
        "omega": float(np.float32(rng.uniform(3, 10))),
        "net": {
            "width": int(rng.integers(4, 9)),
            "modalities": int(rng.integers(1, 5)),
            "k_max": share_or_count(),
            "k_min": share_or_count(),
            "alpha": rng.choice([0, rng.uniform(0, 1)]),
            "classifier_scale": rng.choice([0.5, 0.75, 1.0]),
        },
    }


def _create_witness(case: dict, salt: str) -> torch_net.MinMaxNet:
    net = torch_net.MinMaxNet(
        case["num_classes"],
        stage_sizes=(1, 1),
        stage_strides=(1, 2),
        sigma=case["sigma"],
        omega=case["omega"],
        **case["net"],
    )
    layout = [[name, tensor.shape] for name, tensor in net.state_dict().items()]
    tensors = recorded.draw_state_dict(layout, salt, sigma=case["sigma"], omega=case["omega"])
    net.load_state_dict({name: torch.from_numpy(np.asarray(tensor)) for name, tensor in tensors.items()})
    return net.double().train()


def _draw_labels(net: torch_net.MinMaxNet, images: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
    """For most images the class that the localizer sees in them, for the others its second choice."""
    with torch.no_grad():
        logits = copy.deepcopy(net).localize(images).logits.numpy()
    second, first = logits.argsort(axis=1)[:, -2:].T
    return np.where(rng.uniform(size=len(logits)) < 0.3, second, first)


def _step_of_witness(net: torch_net.MinMaxNet, case: dict, images: torch.Tensor, labels: np.ndarray) -> dict:
    """One step's numbers; the network then has its running statistics."""
    options = {name: case[name] for name in ("num_erasures", "background_loss", "background_weight", "normalization")}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    step = torch_peer.train_step(net, optimizer, images, torch.from_numpy(labels), **options)
    localizer_loss = step.localizer_loss * (case["num_erasures"] + 1)  # which it logs divided
    return {
        "localizer_loss": localizer_loss,
        "foreground_loss": step.foreground_loss,
        "background_loss": step.background_loss,
        "loss": localizer_loss + step.foreground_loss + case["background_weight"] * step.background_loss,
        "num_passes": step.num_passes,
        "masks": step.masks.permute(0, 2, 3, 1),
    }


def _create_step(case: dict, monkeypatch):
    """The library's (state, step), the step's metrics with P among them."""
    module = importlib.import_module("minmax_jax.minmax.step")
    metrics = module._metrics

    def metrics_and_masks(given, erased, sides):
        return metrics(given, erased, sides) | {"masks": erased.masks}

    monkeypatch.setattr(module, "_metrics", metrics_and_masks)
    options = dict(case["net"])
    trunk = mm.ResNet(
        stage_sizes=(1, 1),
        stage_strides=(1, 2),
        width=options.pop("width"),
        unbiased_variance=True,
        dtype=jnp.float64,
    )
    model = mm.create_model(
        trunk,
        num_classes=case["num_classes"],
        classifier_scale=options.pop("classifier_scale"),
        head=networks.wildcat(dtype=jnp.float64, **options),
    )
    objective = networks.objective(
        sigma=case["sigma"],
        omega=case["omega"],
        normalization=case["normalization"],
        num_erasures=case["num_erasures"],
        background=case["background_loss"],
        background_weight=case["background_weight"],
    )
    tx = optax.trace(decay=0.0)  # Its state is the gradient.
    state = mm.create_train_state(
        jax.random.key(0), model=model, tx=tx, image_size=case["size"], shared_statistics=True
    )
    return state, jax.jit(functools.partial(mm.train_step, model=model, tx=tx, objective=objective))


def _load(state: mm.TrainState, net: torch_net.MinMaxNet) -> mm.TrainState:
    doubles = state.replace(**jax.tree.map(lambda x: x.astype(jnp.float64), state.variables))
    # Copies: JAX may go on reading memory that the witness's step then writes to.
    tensors = {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}
    variables = interop.from_published(tensors, doubles.variables).variables
    return state.replace(**variables, opt_state=optax.trace(decay=0.0).init(variables["params"]))


def _assert_close(found, expected, name: str, tolerance: float = TOLERANCE) -> None:
    """Within a share of the expected array's norm."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, name
    distance = np.linalg.norm(found - expected)
    assert distance <= tolerance * max(np.linalg.norm(expected), tolerance), (name, distance)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_step_is_that_of_the_witness(seed, monkeypatch):
    case, rng = _draw_case(seed), np.random.default_rng([seed, 1])
    with jax.enable_x64(True):
        fresh, step = _create_step(case, monkeypatch)
        for draw in range(DRAWS):
            salt = f"{seed}/{draw}/"
            net = _create_witness(case, salt)
            pixels = recorded.draw_images(salt, case["batch"], case["size"])
            images = torch_net.from_uint8(pixels, torch.float64)
            labels = _draw_labels(net, images, rng)
            after, metrics = step(_load(fresh, net), {"images": pixels / 127.5 - 1, "labels": labels})
            masks = metrics.pop("masks")
            expected = _step_of_witness(net, case, images, labels)
            _assert_close(masks, expected.pop("masks"), "masks")
            for name, value in expected.items():
                _assert_close(metrics[name], value, name, tolerance=1e-6)  # Means are taken in single precision.
            tensors = interop.to_published({"params": after.opt_state.trace, "batch_stats": after.batch_stats})
            for name, parameter in net.named_parameters():
                _assert_close(tensors[name], parameter.grad, name)
            for name, buffer in net.named_buffers():
                if ".running_" in name:
                    _assert_close(tensors[name], buffer, name)
