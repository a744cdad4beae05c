"""EfficientNet-Lite against a second implementation in PyTorch: masks, gradients and running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minmax_jax as mm
from minmax_jax import interop
from minmax_jax.models import efficientnet_lite
from minmax_jax.models.efficientnet_lite import Stage
from minmax_jax.training import batch_stats as stats_lib

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.witness

from benchmarks import torch_net, torch_twin  # noqa: E402

_STAGES = (Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(1, 5, 2, 6, 40))


@pytest.fixture(scope="module")
def sides():
    """Model, state with drawn statistics, the network in PyTorch with the same weights, and images."""
    trunk = efficientnet_lite.EfficientNetLite(_STAGES, unbiased_variance=True)
    model, tx = mm.create_model(trunk, num_classes=3), mm.create_optimizer("sgd", 1e-3)
    key = jax.random.key(0)
    state = mm.create_train_state(key, model=model, tx=tx, image_size=(64, 64), shared_statistics=True)
    rng = np.random.default_rng(0)
    stats = jax.tree.map(lambda x: x + jnp.asarray(rng.uniform(0, 0.2, x.shape), jnp.float32), state.batch_stats)
    state = state.replace(batch_stats=stats)
    images = rng.integers(0, 256, (3, 64, 96, 3), np.uint8)
    return model, state, torch_twin.create(model, state.variables), images


def test_masks(sides):
    model, state, net, images = sides
    with torch.no_grad():
        expected = net.eval().localize(torch_net.from_uint8(images), "image")
    found = mm.localize(state.params, state.batch_stats, images, model=model)
    np.testing.assert_allclose(found.masks[..., 0], expected.masks[:, 0].numpy(), atol=3e-4)


def test_gradients_and_running_statistics(sides):
    model, state, net, images = sides
    labels = np.array([0, 2, 1])

    def loss_fn(params):
        variables = {"params": params, "batch_stats": stats_lib.read(state.batch_stats, stats_lib.WHOLE)}
        (logits, _), updated = model.apply(
            variables, images / np.float32(127.5) - 1, train=True, method="localize", mutable="batch_stats"
        )
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(3), labels]), updated["batch_stats"]

    (loss, updated), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updated = stats_lib.write(state.batch_stats, stats_lib.WHOLE, updated)
    expected = torch.nn.functional.cross_entropy(
        net.train().localize(torch_net.from_uint8(images)).logits, torch.from_numpy(labels)
    )
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    family = interop.efficientnet_lite
    found = interop.to_published({"params": gradients, "batch_stats": updated}, family=family)
    compared = 0
    for name, parameter in net.named_parameters():
        if name.startswith("cl32"):  # The localizer alone was differentiated.
            continue
        scale = np.abs(parameter.grad.numpy()).max() + 1e-4
        np.testing.assert_allclose(found[name] / scale, parameter.grad.numpy() / scale, atol=2e-3, err_msg=name)
        compared += 1
    assert compared == 3 + 6 + 3 * 9 + 2  # stem, three kinds of blocks, head
    for name, buffer in net.named_buffers():
        if "running" in name:
            np.testing.assert_allclose(found[name], buffer.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
