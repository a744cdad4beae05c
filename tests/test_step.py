"""The step as a whole: its terms, its statistics, and the same result eager and compiled."""

import functools

import chex
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax.training import batch_stats as batch_stats_lib
from minmax_jax.training import state as state_lib
from tests import networks


def _values(state):
    """All numbers of a state."""
    return jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


def _assert_close(state, other, tolerance=2e-5):
    chex.assert_trees_all_close(_values(state), _values(other), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_eager_and_jit_agree(batch):
    objective = networks.objective(num_erasures=2, background_weight=0.3)
    state, step = networks.start(networks.tiny_model(), objective)
    compiled, metrics = jax.jit(step)(state, batch)
    with jax.disable_jit():
        plain, plain_metrics = step(state, batch)
    _assert_close(compiled, plain)
    chex.assert_trees_all_close(metrics, plain_metrics, rtol=1e-4, atol=1e-5)


def test_total_is_the_sum_of_its_terms(batch):
    objective = networks.objective(gradient="flow", background_weight=0.25, size_weight=0.5)
    state, step = networks.start(networks.tiny_model(), objective)
    _, metrics = jax.jit(step)(state, batch)
    expected = (
        metrics["localizer_loss"]
        + metrics["foreground_loss"]
        + 0.25 * metrics["background_loss"]
        + 0.5 * metrics["size_loss"]
    )
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert metrics["size_loss"] != 0


@pytest.mark.parametrize("num_erasures, alignment", [(0, "corners"), (2, "corners"), (2, "features")])
def test_gradient_is_that_of_the_loss_on_constant_masks(batch, num_erasures, alignment):
    """The sum of separate gradients against one gradient of the whole loss, written down from the model alone."""
    rate = 1.0
    objective = networks.objective(num_erasures=num_erasures, background_weight=0.3, alignment=alignment)
    model = networks.tiny_model()
    state, step = networks.start(model, objective, tx=optax.sgd(rate))
    after, metrics = jax.jit(step)(state, batch)
    images, labels = batch["images"] / 127.5 - 1.0, batch["labels"]

    def run(params, method, *inputs):
        variables = {"params": params, "batch_stats": state.batch_stats[batch_stats_lib.WHOLE]}
        return model.apply(variables, *inputs, train=True, method=method, mutable="batch_stats")[0]

    def cross_entropy(logits):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]

    def loss(params):
        seen, found, alive, first = images, 0.0, True, None
        total = 0.0
        for r in range(max(num_erasures, 1)):
            logits, class_maps = run(params, "localize", seen)
            masks = mm.masks.foreground_masks(
                logits, class_maps, (32, 32), options=mm.masks.MaskOptions(alignment=alignment)
            )
            losses = cross_entropy(logits)
            first = losses if first is None else first
            total += jnp.mean(losses)
            alive &= jnp.argmax(logits, axis=-1) == labels
            tau = jnp.exp(-r / 10) * alive * (losses <= first) * jax.nn.softmax(logits).max(axis=-1)
            tau = (tau if num_erasures else jnp.ones_like(tau))[:, None, None, None]
            found = lax.stop_gradient(jnp.maximum(found, tau * masks))
            seen = lax.stop_gradient(jnp.where(tau > 0, seen * (1 - found), seen))
        total += jnp.mean(cross_entropy(run(params, "classify", images, found)))
        background = jax.nn.log_softmax(run(params, "classify", images, 1 - found))
        return total + 0.3 * jnp.mean(-background.mean(axis=-1))

    value, gradients = jax.jit(jax.value_and_grad(loss))(state.params)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    expected = jax.tree.map(lambda p, g: p - rate * g, state.params, gradients)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-3, atol=1e-4)


def test_each_stream_keeps_its_own_statistics(batch):
    """One step from zero mean: the running mean of the first norm is a tenth of the stream's batch mean."""
    state, step = networks.start(networks.tiny_model(), mm.Objective())
    after, _ = jax.jit(step)(state, batch)
    conv = state.params["trunk"]["conv"]
    patches = (batch["images"] / 127.5 - 1.0).reshape(8, 8, 4, 8, 4, 3)
    features = jnp.einsum("brichk,ihkl->brcl", patches, conv["kernel"]) + conv["bias"]
    means = {name: stats["trunk"]["norm"]["mean"] for name, stats in after.batch_stats.items()}
    np.testing.assert_allclose(means["whole"], 0.1 * features.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-6)
    assert np.abs(means["foreground"] - means["background"]).max() > 1e-4


def test_erased_images_leave_the_statistics_of_whole_ones_alone(batch):
    once, step = networks.start(networks.tiny_model(), networks.objective(num_erasures=1))
    often, step_often = networks.start(networks.tiny_model(), networks.objective(num_erasures=3))
    once, _ = jax.jit(step)(once, batch)
    often, metrics = jax.jit(step_often)(often, batch)
    assert metrics["num_passes"] == 3
    chex.assert_trees_all_close(often.batch_stats["whole"], once.batch_stats["whole"], rtol=1e-6)


def test_shared_statistics_count_every_pass(batch):
    """Two localizer passes and two of the classifier: of a start that no batch has, 0.9^4 is left."""
    statistics = {}
    for start in (0.0, 1000.0):
        state, step = networks.start(networks.tiny_model(), networks.objective(num_erasures=2), shared_statistics=True)
        state = state.replace(batch_stats=jax.tree.map(lambda x: jnp.full_like(x, start), state.batch_stats))
        after, metrics = jax.jit(step)(state, batch)
        assert metrics["num_passes"] == 2
        statistics[start] = after.batch_stats["shared"]["trunk"]["norm"]["mean"]
    np.testing.assert_allclose(statistics[1000.0] - statistics[0.0], 1000 * 0.9**4, rtol=1e-4)


def test_erasing_starts_at_its_step(batch):
    state, step = networks.start(networks.tiny_model(), networks.objective(num_erasures=3, start_epoch=1))
    step = jax.jit(step)
    state, first = step(state, batch)
    _, second = step(state, batch)
    assert (first["num_passes"], second["num_passes"]) == (1, 3)
    assert step._cache_size() == 1


def test_the_average_follows_the_steps_and_is_what_inference_reads(batch):
    """Each step replaces 10 % of it, in the first ones 9 / (9 + steps); the training itself stays as it was."""
    plain, step = networks.start(networks.tiny_model(), mm.Objective())
    step = jax.jit(functools.partial(step, average_decay=0.9))
    averaging = plain.replace(average=plain.variables)
    expected = jax.tree.map(np.asarray, plain.variables)
    for share in (9 / 10, 9 / 11, 9 / 12):
        averaging, _ = step(averaging, batch)
        plain, _ = step(plain, batch)
        expected = jax.tree.map(lambda old, new: (1 - share) * old + share * new, expected, plain.variables)
    late, _ = step(averaging.replace(step=jnp.int32(100)), batch)
    _assert_close(averaging.replace(average=None), plain)
    chex.assert_trees_all_close(averaging.average, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(
        late.average, jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, expected, late.variables), atol=1e-6
    )
    for state, expected in ((averaging, averaging.average), (plain, plain.variables)):
        chex.assert_trees_all_equal(state_lib.inference_variables(state), expected | {"step": state.step})


def test_bfloat16_keeps_parameters_and_losses_in_float32(batch):
    losses = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        state, step = networks.start(networks.tiny_model(dtype=dtype), mm.Objective())
        state, metrics = jax.jit(step)(state, batch)
        chex.assert_trees_all_equal_dtypes(state.params, jax.tree.map(jnp.float32, state.params))
        chex.assert_trees_all_equal_dtypes(state.batch_stats, jax.tree.map(jnp.float32, state.batch_stats))
        assert metrics["loss"].dtype == jnp.float32
        losses[dtype] = float(metrics["loss"])
    np.testing.assert_allclose(losses[jnp.bfloat16], losses[jnp.float32], rtol=0.03)
    assert losses[jnp.bfloat16] != losses[jnp.float32]


def test_learns_a_batch_by_heart(batch):
    state, step = networks.start(networks.tiny_model(), networks.objective(num_erasures=2), tx=optax.adam(0.02))
    run = jax.jit(lambda s: lax.scan(lambda s, _: step(s, batch), s, length=60))
    _, metrics = run(state)
    assert metrics["classification_error"][0] > 30
    assert metrics["classification_error"][-1] == 0
    assert metrics["foreground_entropy"][-1] < 0.7 < 1.0 < metrics["background_entropy"][-1]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(background="other"), "background='other' must be one of"),
        (dict(normalization="pixel"), "normalization='pixel'"),
        (dict(gradient="both"), "gradient='both'"),
        (dict(alignment="centres"), "alignment='centres' must be one of"),
        (dict(loss_weight="two"), "loss_weight='two'"),
        (dict(num_erasures=-1), "num_erasures=-1"),
        (dict(decay=0.0), "decay=0.0"),
        (dict(size_weight=1.0), "loss.size_weight=1.0 has no effect with mask.gradient='stop'"),
        (dict(size_bounds=(0.5, 0.2)), "size_bounds=.* must be a minimum and a larger maximum"),
        (dict(size_bounds=(0.3,)), r"size_bounds=\(0.3,\) must be 2 numbers from 0 to 1"),
        (dict(size_bounds=(True, 1)), "size_bounds=.* must be 2 numbers"),
        (dict(area_weight=0.5), "loss.area_weight=0.5 has no effect .* Set mask.gradient='flow' or loss.area_weight=0"),
        (
            dict(background_gradient="mask"),
            "loss.background_gradient='mask' has no effect .* loss.background_gradient='all'",
        ),
        (dict(background_gradient="none"), "background_gradient='none' must be one of"),
        (dict(whole_weight=-1.0), "whole_weight=-1.0"),
        (dict(random_weight=-1.0), "random_weight=-1.0"),
        (dict(area_weight=-1.0), "area_weight=-1.0"),
        (dict(area_target=1.5), "area_target=1.5 must be from 0 to 1"),
        (dict(range="quartiles"), "range='quartiles' must be one of"),
        (dict(range="percentiles", normalization="batch"), "range='percentiles' is that of each image"),
        (dict(steps_per_epoch=0), "steps_per_epoch=0 must be at least 1"),
        (dict(omega=0.0), "omega=0.0"),
        (dict(omega=float("nan")), "omega=nan"),
        (dict(sigma_growth=0.1, sigma_limit=0.2), "sigma_limit=0.2"),
        (dict(sigma_growth=0.1), "sigma_growth=0.1 must lead from sigma=0.5 to sigma_limit=0.5"),
    ],
)
def test_impossible_objectives_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        networks.objective(**options)


def test_images_of_another_type_are_refused(batch):
    state, step = networks.start(networks.tiny_model(), mm.Objective())
    with pytest.raises(TypeError, match="images are int32"):
        step(state, batch | {"images": batch["images"].astype(jnp.int32)})


def test_a_fresh_state_is_part_of_a_program_or_wanted_for_its_shapes():
    create = functools.partial(
        mm.create_train_state, model=networks.tiny_model(), tx=mm.create_optimizer("sgd", 1e-2), image_size=(16, 16)
    )
    state = create(jax.random.key(0))
    shapes = jax.eval_shape(create, jax.random.key(0))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, state)
    chex.assert_trees_all_close(_values(jax.jit(create)(jax.random.key(0))), _values(state), rtol=1e-5)
