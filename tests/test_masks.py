"""Masks against NumPy, and the two ranges and gradients."""

import functools

import jax
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax import masks
from minmax_jax.masks import MaskOptions
from minmax_jax.models import resnet

RNG = np.random.default_rng(1)
LOGITS = RNG.normal(size=(3, 4)).astype(np.float32)
CLASS_MAPS = RNG.normal(size=(3, 5, 4, 4)).astype(np.float32)


def _numpy_masks(per_image, sigma, omega):
    weights = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
    maps = np.einsum("bc,bhwc->bhw", weights, CLASS_MAPS)
    axes = (1, 2) if per_image else (0, 1, 2)
    minimum, maximum = maps.min(axis=axes, keepdims=True), maps.max(axis=axes, keepdims=True)
    return 1 / (1 + np.exp(-omega * ((maps - minimum) / (maximum - minimum) - sigma)))


@pytest.mark.parametrize("normalization", masks.NORMALIZATIONS)
@pytest.mark.parametrize("sigma, omega", [(0.5, 8.0), (0.15, 5.0)])
def test_masks_equal_numpy(normalization, sigma, omega):
    actual = masks.foreground_masks(
        LOGITS, CLASS_MAPS, (5, 4), options=MaskOptions(sigma=sigma, omega=omega, normalization=normalization)
    )
    expected = _numpy_masks(normalization == "image", sigma, omega)
    np.testing.assert_allclose(actual[..., 0], expected, rtol=1e-4, atol=1e-6)


def test_published_range():
    actual = masks.foreground_masks(LOGITS, CLASS_MAPS, (20, 16))
    ends = 1 / (1 + np.exp([4.0, -4.0]))
    np.testing.assert_allclose(actual.min(axis=(1, 2, 3)), [ends[0]] * 3, rtol=1e-4)
    np.testing.assert_allclose(actual.max(axis=(1, 2, 3)), [ends[1]] * 3, rtol=1e-4)


def test_percentiles_equal_numpy():
    actual = masks.foreground_masks(
        LOGITS, CLASS_MAPS, (5, 4), options=MaskOptions(sigma=0.3, omega=5.0, range="percentiles")
    )
    weights = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
    maps = np.einsum("bc,bhwc->bhw", weights, CLASS_MAPS)
    minimum, maximum = np.percentile(maps, [5, 95], axis=(1, 2), keepdims=True)
    scaled = np.clip((maps - minimum) / (maximum - minimum), 0, 1)
    assert (scaled == 0).sum() == (scaled == 1).sum() == 3  # one of the 20 pixels of each image
    np.testing.assert_allclose(actual[..., 0], 1 / (1 + np.exp(-5 * (scaled - 0.3))), rtol=1e-4)


def test_percentiles_do_not_see_how_far_out_a_pixel_is():
    """Of 100 pixels the five highest may be anything."""
    maps = np.linspace(0, 1, 100, dtype=np.float32).reshape(1, 10, 10, 1)
    far = np.where(maps > 0.99, 50.0, maps)
    for range, same in (("percentiles", True), ("extremes", False)):
        options = MaskOptions(range=range)
        found = [masks.foreground_masks(np.zeros((1, 1)), m, (10, 10), options=options) for m in (maps, far)]
        assert np.allclose(*found, atol=1e-6) == same


def test_the_gradient_through_percentiles_is_that_of_finite_differences():
    with jax.enable_x64(True):
        weights = jnp.asarray(RNG.normal(size=(3, 7, 6, 1)))
        total = lambda maps: jnp.sum(
            weights
            * masks.foreground_masks(LOGITS, maps, (7, 6), options=MaskOptions(gradient="flow", range="percentiles"))
        )
        test_util.check_grads(total, (jnp.asarray(CLASS_MAPS, jnp.float64),), order=1, modes=["rev"])


def test_an_image_does_not_depend_on_its_batch_mates():
    together = masks.foreground_masks(LOGITS, CLASS_MAPS, (9, 9))
    alone = masks.foreground_masks(LOGITS[:1], CLASS_MAPS[:1], (9, 9))
    np.testing.assert_allclose(together[:1], alone, rtol=1e-6)


@pytest.mark.parametrize("alignment", ["corners", "features", "patches"])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 2.0, -5.5, 1e4])
def test_a_constant_map_has_no_foreground_whatever_resizing_rounds(value, alignment):
    for size_in, size_out in ((3, 6), (7, 224), (12, 192), (15, 480)):
        maps = jnp.full((1, size_in, size_in, 4), value, jnp.float32)
        found = masks.foreground_masks(LOGITS[:1], maps, (size_out, size_out), options=MaskOptions(alignment=alignment))
        np.testing.assert_allclose(found, 1 / (1 + np.exp(4.0)), rtol=1e-4)


@pytest.mark.parametrize("range", masks.RANGES)
def test_a_constant_map_gives_a_finite_mask_and_gradient(range):
    def total(class_maps):
        return jnp.sum(
            masks.foreground_masks(LOGITS[:1], class_maps, (6, 6), options=MaskOptions(gradient="flow", range=range))
        )

    value, gradient = jax.value_and_grad(total)(jnp.full((1, 3, 3, 4), 2.0))
    np.testing.assert_allclose(value, 36 / (1 + np.exp(4.0)), rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_stop_cuts_the_gradient_and_flow_does_not():
    def total(class_maps, gradient):
        return jnp.sum(masks.foreground_masks(LOGITS, class_maps, (8, 8), options=MaskOptions(gradient=gradient)))

    assert not np.any(jax.grad(total)(CLASS_MAPS, "stop"))
    assert np.any(jax.grad(total)(CLASS_MAPS, "flow"))


def test_batch_range_is_taken_over_all_devices():
    logits, maps = np.repeat(LOGITS[:2], 2, axis=0), RNG.normal(size=(4, 3, 3, 4)).astype(np.float32)
    expected = masks.foreground_masks(logits, maps, (6, 6), options=MaskOptions(normalization="batch"))
    mapped = jax.pmap(
        lambda a, b: masks.foreground_masks(
            a, b, (6, 6), options=MaskOptions(normalization="batch"), axis_name="devices"
        ),
        axis_name="devices",
    )
    actual = mapped(logits[:, None], maps[:, None])
    np.testing.assert_allclose(actual[:, 0], expected, rtol=1e-5)


@functools.cache
def _spreading_trunk(stem):
    """A trunk of output stride 8 whose kernels are largest in the middle: images to features, compiled."""
    trunk = resnet.ResNet(stage_sizes=(1, 1), stage_strides=(1, 2), width=1, stem=stem)
    variables = jax.jit(functools.partial(trunk.init, train=False))(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

    def spread(parameter):
        if parameter.ndim < 4:
            return parameter
        window = np.exp(-2.0 * np.abs(np.arange(parameter.shape[0]) - parameter.shape[0] // 2))
        return jnp.broadcast_to(np.outer(window, window)[:, :, None, None], parameter.shape)

    variables = variables | {"params": jax.tree.map(spread, variables["params"])}
    return jax.jit(lambda images: trunk.apply(variables, images, train=False)[8])


def _brightest(stem, size, pixel, alignment):
    """Where the mask of an image with one bright pixel is highest, (row, column)."""
    features = _spreading_trunk(stem)(jnp.zeros((1, *size, 3)).at[0, *pixel].set(1.0))
    options = MaskOptions(alignment=alignment)
    found = masks.foreground_masks(jnp.zeros((1, features.shape[-1])), features, size, options=options)
    # Beyond the last feature all pixels are alike: argmax takes the first of them.
    return np.unravel_index(np.argmax(found[0, :, :, 0]), size)


@pytest.mark.parametrize("stem", resnet.STEMS)
@pytest.mark.parametrize("size", [(64, 96), (60, 85)])
@pytest.mark.parametrize("pixel", [(0, 0), (8, 16), (32, 40), (56, 0), (24, 80), (56, 80)])
def test_a_mask_is_highest_where_the_trunk_saw_something(stem, size, pixel):
    """Also in images whose sides are no multiples of the output stride, 8."""
    assert _brightest(stem, size, pixel, "features") == pixel


def test_aligned_corners_move_what_the_trunk_saw():
    """Of 8 and 12 features the last lie on the pixels 56 and 88; their corners on 63 and 95."""
    assert _brightest("deep", (64, 96), (0, 0), "corners") == (0, 0)
    assert _brightest("deep", (64, 96), (56, 88), "corners") == (63, 95)
    # Feature 3 at 3 x 63 / 7, feature 5 at 5 x 95 / 11 = 43.2.
    assert _brightest("deep", (64, 96), (24, 40), "corners") == (27, 43)


@pytest.mark.parametrize("option", ["normalization", "gradient", "alignment", "range"])
def test_unknown_options_are_refused(option):
    with pytest.raises(ValueError, match=f"{option}='other' must be one of"):
        MaskOptions(**{option: "other"})


def test_percentiles_of_a_batch_are_refused():
    with pytest.raises(ValueError, match="range='percentiles' is that of each image: set normalization='image'"):
        MaskOptions(normalization="batch", range="percentiles")
