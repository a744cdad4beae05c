"""The recursion against its rules, written down once more in NumPy, and its gradients against an unrolled loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.minmax import erasing

LABELS = np.array([0, 1, 2, 0])
IMAGES = np.random.default_rng(5).uniform(-1, 1, (4, 3, 3, 3)).astype(np.float32)


def _logits_and_masks(params, images):
    """A localizer of two products: what it sees decides its scores and its mask."""
    logits = jnp.einsum("bhwk,kc->bc", images, params["scores"]) + params["bias"][: images.shape[0]]
    return logits, jax.nn.sigmoid(jnp.sum(images * params["mask"], axis=-1, keepdims=True))


def _pass_fn(params, images, batch_stats, num_passes):
    del num_passes
    return erasing.LocalizerPass(*_logits_and_masks(params, images), batch_stats=batch_stats + 1)


def _params(confident=True):
    rng = np.random.default_rng(6)
    right = np.eye(3)[LABELS] * (3.0 if confident else -3.0)
    if confident:
        right[3] = [0, 4, 0]  # the last image is always wrong
    return jax.tree.map(
        jnp.float32, {"scores": rng.normal(size=(3, 3)) * 0.4, "mask": rng.normal(size=3) * 2, "bias": right}
    )


def _numpy_recursion(params, num_erasures, decay, loss_weight):
    """Section 4 of the method, image by image, with no thought of gradients."""
    params = jax.tree.map(np.float64, params)
    batch = len(LABELS)
    accumulated, total = np.zeros((batch, 3, 3, 1)), np.zeros(batch)
    images, history, weights = IMAGES.astype(float), np.ones(batch), np.ones(batch)
    first_losses = None
    for r in range(num_erasures):
        if not history.any():
            return images, accumulated, total, history, r
        logits = np.einsum("bhwk,kc->bc", images, params["scores"]) + params["bias"]
        masks = 1 / (1 + np.exp(-np.sum(images * params["mask"], axis=-1, keepdims=True)))
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        losses = -np.log(probabilities[np.arange(batch), LABELS])
        first_losses = losses if r == 0 else first_losses
        total += weights * losses
        for i in range(batch):
            right = float(np.argmax(logits[i]) == LABELS[i])
            history[i] = min(history[i], right)
            tau = np.exp(-r / decay) * right * (losses[i] <= first_losses[i]) * probabilities[i].max() * history[i]
            accumulated[i] = np.maximum(accumulated[i], tau * masks[i])
            if tau != 0:
                images[i] = images[i] * (1 - accumulated[i])
            weights[i] = tau if loss_weight == "trust" else 1.0
    return images, accumulated, total, history, num_erasures


def _erase(params, num_erasures, *, decay=10.0, loss_weight="one"):
    run = functools.partial(erasing.erase, _pass_fn, decay=decay, loss_weight=loss_weight)
    return jax.jit(lambda p, r: run(p, IMAGES, LABELS, jnp.int32(0), num_erasures=r))(params, num_erasures)


@pytest.mark.parametrize("loss_weight", erasing.LOSS_WEIGHTS)
@pytest.mark.parametrize("num_erasures, decay", [(1, 10.0), (2, 10.0), (4, 1.5)])
def test_recursion_follows_the_rules(num_erasures, decay, loss_weight):
    erased, _ = _erase(_params(), num_erasures, decay=decay, loss_weight=loss_weight)
    images, masks, losses, history, passes = _numpy_recursion(_params(), num_erasures, decay, loss_weight)
    assert int(erased.num_passes) == passes == num_erasures
    np.testing.assert_allclose(erased.images, images, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(erased.masks, masks, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(erased.losses, losses, rtol=1e-4)
    np.testing.assert_array_equal(erased.history, history)
    np.testing.assert_array_equal(erased.first_correct, [True, True, True, False])
    assert int(erased.batch_stats) == passes


def test_a_wrong_image_is_never_erased():
    erased, _ = _erase(_params(), 4)
    np.testing.assert_array_equal(erased.images[3], IMAGES[3])
    assert not np.any(erased.masks[3])


def test_an_image_that_nothing_was_erased_from_counts_once():
    once, _ = _erase(_params(), 1, loss_weight="trust")
    often, _ = _erase(_params(), 4, loss_weight="trust")
    np.testing.assert_allclose(often.losses[3], once.losses[3], rtol=1e-6)
    published, _ = _erase(_params(), 4)
    np.testing.assert_allclose(published.losses[3], 4 * once.losses[3], rtol=1e-5)


def test_the_loop_stops_when_no_image_is_left():
    erased, _ = _erase(_params(confident=False), 5)
    assert int(erased.num_passes) == 1
    assert not np.any(erased.masks)


def test_without_erasing_the_mask_is_taken_as_it_is():
    params = _params()
    erased, _ = _erase(params, 0)
    np.testing.assert_allclose(erased.masks, _logits_and_masks(params, IMAGES)[1], rtol=1e-6)
    assert int(erased.num_passes) == 1


def test_a_schedule_needs_no_second_trace():
    params, traces = _params(), []

    def counting(*arguments):
        traces.append(1)
        return _pass_fn(*arguments)

    run = jax.jit(lambda r: erasing.erase(counting, params, IMAGES, LABELS, jnp.int32(0), num_erasures=r)[0])
    assert [int(run(r).num_passes) for r in (0, 1, 3)] == [1, 1, 3]
    traces_of_first = len(traces)
    run(2)
    assert len(traces) == traces_of_first
    np.testing.assert_allclose(run(0).masks, _erase(params, 0)[0].masks, rtol=1e-6)


@pytest.mark.parametrize("loss_weight", erasing.LOSS_WEIGHTS)
def test_gradients_are_those_of_each_pass_by_itself(loss_weight):
    """Images, trust and masks of earlier passes are constants: replay the recorded images one by one."""
    params, num_erasures = _params(), 3
    _, gradients = _erase(params, num_erasures, loss_weight=loss_weight)
    seen, weights = [IMAGES], [np.ones(4)]
    for r in range(1, num_erasures):
        erased, _ = _erase(params, r, loss_weight=loss_weight)
        seen.append(erased.images)
        weights.append(erased.loss_weights)

    def loss(params):
        total = 0.0
        for images, weight in zip(seen, weights):
            log_p = jax.nn.log_softmax(_logits_and_masks(params, images)[0])
            total += jnp.mean(weight * -log_p[np.arange(4), LABELS])
        return total

    for ours, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves(jax.grad(loss)(params))):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_differentiable_form_has_the_same_values_and_loss_gradients():
    params = _params()
    expected, gradients = _erase(params, 3)

    def run(params):
        erased = erasing.erase_differentiably(
            _pass_fn, params, IMAGES, LABELS, jnp.int32(0), max_erasures=4, num_erasures=3
        )
        return jnp.mean(erased.losses), erased

    actual_gradients, erased = jax.jit(jax.grad(run, has_aux=True))(params)
    for name in ("images", "masks", "losses", "history", "num_passes"):
        np.testing.assert_allclose(getattr(erased, name), getattr(expected, name), rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(actual_gradients), jax.tree.leaves(gradients)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_differentiable_masks_reach_every_pass_but_not_the_trust():
    """Against differences: where pass r decides P, P = tau M_r, and tau counts as a constant."""
    params = _params()

    def masks_of(params):
        return erasing.erase_differentiably(
            _pass_fn, params, IMAGES, LABELS, jnp.int32(0), max_erasures=2, num_erasures=2
        ).masks

    gradients = jax.grad(lambda p: jnp.sum(masks_of(p)))(params)
    first, _ = _erase(params, 1)
    trust = first.masks[:, :1, :1] / _logits_and_masks(params, IMAGES)[1][:, :1, :1]
    second_trust = np.exp(-0.1) * jax.nn.softmax(_logits_and_masks(params, first.images)[0]).max(axis=-1)
    second_trust = np.where(masks_of(params).sum(axis=(1, 2, 3)) > 0, second_trust, 0)[:, None, None, None]
    log_p = jax.nn.log_softmax(_logits_and_masks(params, first.images)[0])[np.arange(4), LABELS]
    first_log_p = jax.nn.log_softmax(_logits_and_masks(params, IMAGES)[0])[np.arange(4), LABELS]
    second_trust = np.where((log_p >= first_log_p)[:, None, None, None], second_trust, 0)

    def by_hand(params):
        one = trust * _logits_and_masks(params, IMAGES)[1]
        two = second_trust * _logits_and_masks(params, first.images)[1]
        return jnp.sum(jnp.maximum(one, two))

    np.testing.assert_allclose(gradients["mask"], jax.grad(by_hand)(params)["mask"], rtol=1e-4)
    assert not np.any(gradients["scores"])


def test_memory_does_not_grow_with_the_number_of_passes(no_compilation_cache):
    def temporaries(num_erasures):
        run = functools.partial(erasing.erase, _pass_fn, num_erasures=num_erasures, batch_stats=jnp.int32(0))
        compiled = jax.jit(lambda p: run(params=p, images=IMAGES, labels=LABELS)).lower(_params()).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert 0 < temporaries(8) <= 1.05 * temporaries(2)
