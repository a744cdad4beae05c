"""Localizing: each stream's statistics, sane outputs, and use inside other programs."""

import chex
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax import masks
from minmax_jax.minmax import method as minmax
from minmax_jax.ops import resize
from minmax_jax.training import state as state_lib
from tests import networks


def _localize(model, state, images, **options):
    return mm.localize(state.params, state.batch_stats, images, model=model, **options)


@pytest.mark.parametrize("alignment", masks.ALIGNMENTS)
def test_each_pass_reads_the_statistics_of_its_stream(batch, alignment):
    model = networks.tiny_model()
    state, _ = networks.start(model, mm.Objective())
    rng = np.random.default_rng(0)
    state = state.replace(
        batch_stats=jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype), state.batch_stats)
    )
    found = _localize(model, state, batch["images"], objective=networks.objective(alignment=alignment))
    images = batch["images"] / 127.5 - 1.0

    def run(stream, method, *inputs):
        return model.apply({"params": state.params, "batch_stats": state.batch_stats[stream]}, *inputs, method=method)

    logits, class_maps = run("whole", "localize", images)
    expected_masks = masks.foreground_masks(
        logits, class_maps, (32, 32), options=masks.MaskOptions(alignment=alignment)
    )
    probabilities = jax.nn.softmax(run("foreground", "classify", images, expected_masks))
    background = jax.nn.softmax(run("background", "classify", images, 1 - expected_masks))
    np.testing.assert_allclose(found.masks, expected_masks, rtol=1e-5)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-4)
    np.testing.assert_array_equal(found.classes, np.argmax(probabilities, axis=-1))
    np.testing.assert_array_equal(found.localizer_classes, np.argmax(logits, axis=-1))
    for entropy, p in ((found.foreground_entropy, probabilities), (found.background_entropy, background)):
        np.testing.assert_allclose(entropy, -np.sum(p * np.log(p), axis=-1), rtol=1e-4)


def test_the_method_predicts_with_the_masks_it_trains_with(batch):
    """A threshold that grows by the epoch is that of the step which trained the variables: the 6th is of epoch 2."""
    model = networks.tiny_model()
    growing = {"sigma": 0.3, "sigma_growth": 0.1, "sigma_limit": 0.9, "omega": 5.0}
    growing |= {"alignment": "features", "range": "percentiles"}
    objective = networks.objective(**growing, steps_per_epoch=2)
    method = minmax.create_method(model, optax.sgd(0.1), objective)
    state = method.init(jax.random.key(0), (32, 32)).replace(step=jnp.int32(6))
    prediction = method.predict(state_lib.inference_variables(state), batch["images"])
    expected = _localize(
        model,
        state,
        batch["images"],
        objective=networks.objective(omega=5.0, alignment="features", range="percentiles"),
    )
    chex.assert_trees_all_close(prediction.masks, expected.masks, rtol=1e-5)
    chex.assert_trees_all_close(prediction.probabilities, expected.probabilities, rtol=1e-5)
    chex.assert_trees_all_close(
        prediction.scores,
        {
            "localizer_class": expected.localizer_classes,
            "foreground_entropy": expected.foreground_entropy,
            "background_entropy": expected.background_entropy,
        },
        rtol=1e-5,
    )


@pytest.mark.parametrize("flipped", [(), (2,), (1,), (1, 2)])
def test_what_is_found_is_a_mean_over_flips(batch, flipped):
    """And what is found in the mirror image is the mirror image of what is found."""
    model = networks.tiny_model()
    state, _ = networks.start(model, mm.Objective())
    images = np.asarray(batch["images"])
    options = {"flip_horizontal": 2 in flipped, "flip_vertical": 1 in flipped}
    views = [axes for axes in ((), (1,), (2,), (1, 2)) if set(axes) <= set(flipped)]
    alone = [_localize(model, state, np.flip(images, axes)) for axes in views]

    found = _localize(model, state, images, **options)
    turned_back = [np.flip(one.masks, axes) for one, axes in zip(alone, views)]
    np.testing.assert_allclose(found.masks, np.mean(turned_back, axis=0), rtol=1e-4, atol=1e-5)
    for name in ("probabilities", "foreground_entropy", "background_entropy"):
        expected = np.mean([getattr(one, name) for one in alone], axis=0)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4, err_msg=name)
    np.testing.assert_array_equal(found.classes, np.argmax(found.probabilities, axis=-1))
    if flipped:
        differences = np.abs(turned_back - np.mean(turned_back, axis=0))
        np.testing.assert_allclose(found.view_disagreement, differences.mean(axis=(0, 2, 3, 4)), rtol=1e-3)
    else:
        assert found.view_disagreement is None
    mirrored = _localize(model, state, np.flip(images, flipped), **options)
    np.testing.assert_allclose(np.flip(mirrored.masks, flipped), found.masks, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mirrored.localizer_classes, found.localizer_classes)


def test_scales_are_a_mean_over_sizes(batch):
    """Sides are rounded to multiples of 32; the size itself is taken as it is."""
    model = networks.tiny_model()
    state, _ = networks.start(model, mm.Objective())
    images = resize.resize_bilinear(np.asarray(batch["images"], np.float32) / 127.5 - 1, (40, 72))
    sizes = {0.5: (32, 32), 1.0: (40, 72), 1.5: (64, 96)}
    alone = [_localize(model, state, resize.resize_bilinear(images, size)) for size in sizes.values()]
    found = _localize(model, state, images, scales=tuple(sizes))
    masks = [resize.resize_bilinear(one.masks, (40, 72)) for one in alone]
    np.testing.assert_allclose(found.masks, np.mean(masks, axis=0), rtol=1e-4, atol=1e-5)
    differences = np.abs(np.array(masks) - np.mean(masks, axis=0)).mean(axis=(0, 2, 3, 4))
    np.testing.assert_allclose(found.view_disagreement, differences, rtol=1e-3)
    np.testing.assert_allclose(found.probabilities, np.mean([one.probabilities for one in alone], axis=0), rtol=1e-4)
    chex.assert_trees_all_equal(_localize(model, state, images, scales=(1.0,)), alone[1])


def test_uint8_and_scaled_images_are_the_same(batch):
    model = networks.tiny_model()
    state, _ = networks.start(model, mm.Objective())
    scaled = np.asarray(batch["images"], np.float32) / 127.5 - 1
    chex.assert_trees_all_close(_localize(model, state, batch["images"]), _localize(model, state, scaled), rtol=1e-5)


def test_an_image_does_not_depend_on_its_batch(batch):
    model = networks.tiny_model()
    state, _ = networks.start(model, mm.Objective())
    together, alone = (_localize(model, state, batch["images"][:n]) for n in (8, 1))
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[:1], together), alone, rtol=1e-4, atol=1e-5)


def test_runs_in_a_loop_of_ones_own(batch):
    model = networks.tiny_model()
    state, step = networks.start(model, networks.objective(num_erasures=1))

    @jax.jit
    def program(state, batch):
        state = lax.fori_loop(0, 3, lambda _, s: step(s, batch)[0], state)
        return lax.map(lambda image: _localize(model, state, image[None]).masks[0], batch["images"]), state

    found, after = program(state, batch)
    assert found.shape == (8, 32, 32, 1) and after.step == 3
    assert np.all((found > 0) & (found < 1))


def test_a_model_on_two_trunks(batch):
    model = mm.create_model(networks.TinyTrunk(), classifier_trunk=networks.TinyTrunk(), num_classes=3)
    state, step = networks.start(model, mm.Objective())
    assert set(state.params) == {"trunk", "classifier_trunk", "localizer_head", "classifier_head"}
    after, _ = jax.jit(step)(state, batch)
    for name in state.params:
        before, now = jax.tree.leaves(state.params[name]), jax.tree.leaves(after.params[name])
        assert any(np.any(a != b) for a, b in zip(before, now)), name


def test_a_trunk_without_batch_norm(batch):
    import flax.linen as nn

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            return nn.relu(nn.Conv(4, (4, 4), strides=(4, 4))(images))

    model = mm.create_model(Plain(), num_classes=3)
    state, step = networks.start(model, networks.objective(num_erasures=2))
    state, metrics = jax.jit(step)(state, batch)
    assert np.isfinite(metrics["loss"])
    assert _localize(model, state, batch["images"]).masks.shape == (8, 32, 32, 1)
