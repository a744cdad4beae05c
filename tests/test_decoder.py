"""The decoder of the second stage: its formula, what it reads, and the masks that it predicts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minmax_jax as mm
from minmax_jax.method import Prediction
from minmax_jax.minmax import inference
from minmax_jax.models import decoder as decoder_lib
from minmax_jax.refinement import refined_inference
from minmax_jax.runs.building import creation
from minmax_jax.training import batch_stats as stats_lib
from minmax_jax.training import views as views_lib
from minmax_jax.training.views import Views
from tests import networks


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _start(decoder, stages, images):
    """Parameters that are all drawn, also those that start at 0 or 1."""
    params = jax.eval_shape(decoder.init, jax.random.key(0), stages, images)["params"]
    return jax.tree.map(lambda leaf: 0.5 * _random(*leaf.shape, seed=leaf.size) + 0.3, params)


def test_halving_takes_means_of_2x2_pixels_and_enlarging_puts_them_back():
    """A linear ramp comes back as it was, but for the outermost pixels, whose neighbours are unknown."""
    y, x = np.indices((8, 12)).astype(np.float32)
    ramp = (3 * y - 2 * x + 5)[None, :, :, None]
    half = np.asarray(decoder_lib.halve(ramp))
    np.testing.assert_allclose(
        half[0, 1, 2, 0], np.mean([3 * a - 2 * b + 5 for a in (2, 3) for b in (4, 5)]), rtol=1e-6
    )
    found = np.asarray(decoder_lib.enlarge(half))
    assert half.shape == (1, 4, 6, 1) and found.shape == ramp.shape
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], ramp[:, 1:-1, 1:-1], atol=1e-4)
    np.testing.assert_allclose(found[0, 0, 0, 0], half[0, 0, 0, 0], rtol=1e-6)


def test_it_reads_stages_of_stride_4_and_more():
    stages = {32: "e", 2: "a", 4: "b", 1: "z", 16: "d"}
    assert decoder_lib.select_stages(stages) == {4: "b", 16: "d", 32: "e"}


def test_without_stages_a_pixel_depends_on_its_own_2x2_pixels_alone():
    decoder, images = decoder_lib.Decoder(width=4), _random(1, 8, 12, 3)
    params = _start(decoder, {}, images)
    apply = jax.jit(lambda images: decoder.apply({"params": params}, {}, images))
    changed = images.copy()
    changed[0, 5, 6] += 0.5
    differs = np.asarray(apply(images) != apply(changed))[0, :, :, 0]
    assert differs.shape == (4, 6)
    np.testing.assert_array_equal(np.argwhere(differs), [[2, 3]])


def _normed(x, params):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


@pytest.mark.parametrize("alignment", ["features", "patches"])
def test_it_equals_its_formula(alignment):
    """In NumPy: layer norms, 1x1 convolutions, and features interpolated to where they lie."""
    images, stages = _random(2, 8, 16, 3), {8: _random(2, 1, 2, 6, seed=2)}
    if alignment == "features":  # trunks of patches have one stage
        stages |= {4: 100 * _random(2, 2, 4, 5, seed=1)}
    decoder = decoder_lib.Decoder(width=7, alignment=alignment)
    params = _start(decoder, stages, images)
    found = jax.jit(decoder.apply)({"params": params}, stages, images)

    total = images.reshape(2, 4, 2, 8, 2, 3).mean((2, 4)) @ params["image"]["kernel"] + params["image"]["bias"]
    for stride, features in stages.items():
        features = _normed(features, params[f"norm{stride}"]) @ params[f"stride{stride}"]["kernel"]
        for axis, size in ((1, 4), (2, 8)):
            # Positions in pixels of the mask: feature k at k * stride / 2, a patch half its side further.
            factor = stride // 2
            lie = np.arange(features.shape[axis]) * factor + (0 if alignment == "features" else (factor - 1) / 2)
            interpolate = functools.partial(lambda lie, size, line: np.interp(np.arange(size), lie, line), lie, size)
            features = np.apply_along_axis(interpolate, axis, features)
        total = total + features
    x = np.maximum(_normed(total, params["norm"]), 0)
    x = np.maximum(x @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    expected = x @ params["mask"]["kernel"] + params["mask"]["bias"]
    assert found.shape == (2, 4, 8, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_stages_of_a_model_are_those_of_its_trunk(batch):
    """With the statistics of whole images, whether the pixels are uint8 or scaled."""
    trunk = mm.ResNet(stage_sizes=(1, 1), stage_strides=(1, 2), width=4)
    model = mm.create_model(trunk, num_classes=3)
    state, _ = networks.start(model, mm.Objective())
    scaled = batch["images"] / 127.5 - 1
    network = {
        "params": state.params["trunk"],
        "batch_stats": stats_lib.read(state.batch_stats, stats_lib.WHOLE)["trunk"],
    }
    expected = trunk.apply(network, scaled, train=False)
    assert {stride: features.shape for stride, features in expected.items()} == {4: (8, 8, 8, 4), 8: (8, 4, 4, 8)}
    for images in (batch["images"], scaled):
        found = inference.trunk_stages(state.variables, images, model=model)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, dict(expected))


def test_refined_masks_are_means_over_mirror_images():
    """Classes and scores remain those of the first stage, but for the disagreement of the views."""
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
    decoder, probabilities = decoder_lib.Decoder(width=4), np.array([[0.2, 0.8], [0.7, 0.3]])

    def stages(variables, images):  # they differ from left to right and from top to bottom: mirror images disagree
        del variables
        return {4: images[:, ::4, ::4] * jnp.arange(6)[:, None] + jnp.arange(4)[:, None, None] / 4}

    params = _start(decoder, stages({}, jnp.float32(images)), jnp.float32(images))

    def predict(images, **flips):
        def first_stage(variables, images):
            assert images.dtype == np.uint8 and "decoder" in variables
            scores = {"entropy": jnp.ones(2), "view_disagreement": jnp.full(2, 0.3)}
            return Prediction(probabilities, jnp.zeros((2, 16, 24, 1)), scores)

        options = dict(first_stage=first_stage, stages=stages, decoder=decoder)
        return jax.jit(functools.partial(refined_inference.predict, **options, views=Views(**flips)))(
            {"decoder": params}, images
        )

    plain = predict(images)
    np.testing.assert_allclose(plain.probabilities, probabilities, rtol=1e-6)
    np.testing.assert_array_equal(plain.scores["entropy"], [1, 1])
    np.testing.assert_allclose(plain.scores["view_disagreement"], 0.3)  # of one view, there is no other
    scaled = images.astype(np.float32) / 127.5 - 1
    logits = decoder.apply({"params": params}, stages({}, scaled), scaled)
    np.testing.assert_allclose(
        plain.masks[:, 1, 1, 0],
        (1 / (1 + np.exp(-logits)))[:, [0, 0, 1, 1], [0, 1, 0, 1], 0] @ [9 / 16, 3 / 16, 3 / 16, 1 / 16],
        rtol=1e-5,
    )
    mirrored = np.asarray(predict(images[:, :, ::-1]).masks)[:, :, ::-1]
    flipped, mean = predict(images, flip_horizontal=True), (plain.masks + mirrored) / 2
    np.testing.assert_allclose(flipped.masks, mean, atol=1e-6)
    differences = np.abs(plain.masks - mirrored).mean(axis=(1, 2, 3)) / 2
    assert differences.min() > 1e-4
    spread = np.subtract(*np.quantile(mean, (0.95, 0.05), axis=(1, 2, 3)))
    np.testing.assert_allclose(flipped.scores["view_disagreement"], differences / spread, rtol=1e-3)
    np.testing.assert_allclose(flipped.scores["mask_spread"], spread, rtol=1e-4)
    upside = np.asarray(predict(images[:, ::-1]).masks)[:, ::-1]
    np.testing.assert_allclose(predict(images, flip_vertical=True).masks, (plain.masks + upside) / 2, atol=1e-6)


@pytest.mark.parametrize("trunk, alignment", [("resnet50", "features"), ("vit_small14", "patches")])
def test_features_lie_where_the_trunk_puts_them(trunk, alignment):
    decoder = creation.create_decoder(trunk)
    assert decoder.alignment == alignment and decoder.width == 32


@pytest.mark.parametrize("max_pixels", [0, 1 << 20])
def test_trunk_is_computed_once_for_both_stages(monkeypatch, max_pixels):
    """The products of matrices of the compiled program are counted; in a loop over the views each stage has its own."""
    monkeypatch.setattr(views_lib, "_MAX_PIXELS", max_pixels)
    kernel, images = _random(3, 5), _random(2, 16, 24, 3)

    def stages(variables, images):
        del variables
        return {4: jnp.tanh(images[:, ::4, ::4] @ kernel)}

    def first_stage(variables, images):
        def predict_view(images):
            features = stages(variables, images)[4]
            return jnp.zeros((*images.shape[:3], 1)), {"probabilities": features.mean((1, 2))}

        return views_lib.predict(predict_view, images, views=views)

    views, decoder = Views(flip_horizontal=True), decoder_lib.Decoder(width=7)
    variables = {"decoder": _start(decoder, stages({}, images), images)}
    predict = functools.partial(
        refined_inference.predict, first_stage=first_stage, stages=stages, decoder=decoder, views=views
    )
    program = jax.jit(predict).lower(variables, images).compile().as_text()
    assert program.count(" tanh(") == (2 if max_pixels == 0 else 1)
