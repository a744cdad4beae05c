"""Seeds and losses of the second stage against loops and formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.refinement import decoder_training, edges, seeds
from minmax_jax.refinement.options import RefineOptions


def _shares(cumulative):
    """[N, K] probabilities of a cumulative distribution."""
    return np.diff(np.asarray(cumulative, np.float64), axis=1, prepend=0)


def _foreground(mask, valid=None, power=2.0):
    mask = np.array([mask])
    return seeds.cumulative_foreground(mask, np.ones(mask.shape, bool) if valid is None else valid[None], power=power)


def _background(mask, valid=None, share=0.5):
    mask = np.array([mask])
    return seeds.cumulative_background(mask, np.ones(mask.shape, bool) if valid is None else valid[None], share=share)


@pytest.mark.parametrize(
    "power, expected", [(0.0, [1, 1, 1, 1]), (1.0, [0, 1, 2, 5]), (2.0, [0, 1, 4, 25]), (3.0, [0, 1, 8, 125])]
)
def test_foreground_seeds_are_drawn_in_proportion_to_a_power_of_the_mask(power, expected):
    found = _foreground([[0.3, 0.4], [0.5, 0.8]], power=power)
    assert found.shape == (1, 4) and found.dtype == np.float32 and found[0, -1] == 1
    np.testing.assert_allclose(_shares(found)[0], np.array(expected) / np.sum(expected), atol=1e-6)


def test_small_differences_and_great_powers_are_no_constant_mask():
    """(1e-4)^12 is 0 in single precision."""
    shares = _shares(_foreground([[0.5, 0.5001, 0.5002]], power=12.0))[0]
    np.testing.assert_allclose(shares, np.array([0, 1, 2**12]) / (1 + 2**12), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "share, expected",
    [(0.01, [1, 0, 0, 0, 0]), (0.25, [1, 1, 0, 0, 0]), (0.5, [1, 1, 1, 0, 0]), (0.74, [1, 1, 1, 0, 0])],
)
def test_background_seeds_are_uniform_over_the_lowest_values(share, expected):
    """Of five values the quantile of a quarter is the second."""
    shares = _shares(_background([[0.1, 0.2, 0.3, 0.4, 0.9]], share=share))[0]
    np.testing.assert_allclose(shares, np.array(expected) / np.sum(expected), atol=1e-6)


def test_equal_values_are_background_together():
    shares = _shares(_background([[0.2, 0.9, 0.2], [0.2, 0.9, 0.2]], share=0.3))[0]
    np.testing.assert_allclose(shares, np.array([1, 0, 1, 1, 0, 1]) / 4, atol=1e-6)


def test_invalid_pixels_are_never_seeds_and_do_not_count():
    """The minimum and the maximum lie outside: neither moves the others' probabilities."""
    mask = np.array([[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]])
    valid = np.array([[False, True, True], [True, True, False]])
    np.testing.assert_allclose(
        _shares(_foreground(mask, valid, power=1.0))[0], np.array([0, 0, 1, 2, 3, 0]) / 6, atol=1e-6
    )
    np.testing.assert_allclose(_shares(_background(mask, valid))[0], np.array([0, 1, 1, 0, 0, 0]) / 2, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_a_constant_mask_each_valid_pixel_is_as_probable(value, dtype):
    mask, valid = np.full((2, 3), value, dtype), np.array([[True, True, False], [False, True, True]])
    for found in (_foreground(mask, valid), _background(mask, valid)):
        np.testing.assert_allclose(_shares(found)[0], valid.ravel() / 4, atol=1e-6)


def test_each_image_has_its_own_distribution():
    masks = np.array([[[0.0, 1.0]], [[1.0, 0.0]]])
    valid = np.ones(masks.shape, bool)
    rng = np.random.default_rng(0)
    foreground = seeds.draw(seeds.cumulative_foreground(masks, valid, power=2.0), rng, count=5)
    background = seeds.draw(seeds.cumulative_background(masks, valid, share=0.5), rng, count=6)
    assert foreground.dtype == background.dtype == np.int32
    np.testing.assert_array_equal(foreground, [[1] * 5, [0] * 5])
    np.testing.assert_array_equal(background, [[0] * 6, [1] * 6])


class _Drawn:
    """A generator whose numbers are given."""

    def __init__(self, *numbers):
        self._numbers = np.array(numbers, np.float32)

    def random(self, count, dtype):
        assert count == len(self._numbers) and dtype == np.float32
        return self._numbers


_LAST = 1 - 2.0**-24  # the largest float32 below 1


def test_the_ends_of_the_distribution_are_pixels_with_weight():
    """0 and the number before 1 are what a generator can draw: leading and trailing zeros must not answer them."""
    of_draws = {
        (1, 1, 1, 1): [0, 3],
        (0, 0, 1, 2): [2, 3],
        (2, 1, 0, 0): [0, 1],
        (0, 3, 0, 0): [1, 1],
        (0, 0, 0, 1): [3, 3],
        (1, 0, 0, 0): [0, 0],
    }
    for weights, expected in of_draws.items():
        cumulative = _foreground([weights], power=1.0) if 0 in weights else _background([weights])
        np.testing.assert_array_equal(seeds.draw(cumulative, _Drawn(0, _LAST), count=2), [expected])


@pytest.mark.parametrize("seed", range(5))
def test_no_pixel_without_weight_answers_any_number(seed):
    """Tenths of random masks, half of whose pixels are at the minimum, up to 2000 pixels."""
    rng = np.random.default_rng(seed)
    mask = np.maximum(rng.uniform(-1, 1, (1, int(rng.integers(3, 2000)))), 0) * 0.1
    mask[0, 0] = 0
    cumulative = _foreground(mask, power=float(rng.uniform(0.5, 4)))
    thresholds = np.unique(np.concatenate([cumulative[0], np.nextafter(cumulative[0], np.float32(0))]))
    numbers = thresholds[(thresholds >= 0) & (thresholds < 1)]
    drawn = seeds.draw(cumulative, _Drawn(*numbers), count=len(numbers))
    assert (mask[0, drawn] > 0).all()


def test_draws_follow_the_distribution():
    """Chi-square of 20000 draws; 27.9 is its 0.001 tail with 9 degrees of freedom."""
    weights = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.0])
    drawn = seeds.draw(_foreground([weights], power=1.0), np.random.default_rng(0), count=20_000)[0]
    counts, expected = np.bincount(drawn, minlength=11), 20_000 * weights / 55
    assert counts[0] == 0 and np.sum((counts - expected)[1:] ** 2 / expected[1:]) < 27.9


_edge_loss = jax.jit(edges.edge_loss, static_argnames=("reach",))
_cross_entropy = jax.jit(decoder_training.partial_cross_entropy)


def _edge_loops(mask, image, bandwidth, reach):
    """A pair at a time, each once."""
    height, width = mask.shape
    terms = []
    for y in range(height):
        for x in range(width):
            for down, right in ((0, reach), (reach, 0), (reach, reach), (reach, -reach)):
                if y + down < height and 0 <= x + right < width:
                    unlike = np.sum((image[y, x] - image[y + down, x + right]) ** 2)
                    terms.append(abs(mask[y, x] - mask[y + down, x + right]) * np.exp(-unlike / bandwidth))
    return np.mean(terms) if terms else 0.0


@pytest.mark.parametrize(
    "size, reach",
    [
        ((5, 7), 1),
        ((5, 7), 3),
        ((7, 5), 4),
        ((3, 9), 4),
        ((9, 3), 4),
        ((9, 3), 8),
        ((1, 6), 2),
        ((3, 3), 4),
        ((1, 1), 1),
    ],
)
def test_edge_loss_equals_a_loop_over_pairs(size, reach):
    """Also where the reach is greater than a side, or than both: then there is no pair, and the loss is 0."""
    rng = np.random.default_rng(0)
    masks, colors = rng.uniform(0, 1, (2, *size)), rng.uniform(0, 1, (2, *size, 3))
    found = _edge_loss(jnp.float32(masks), jnp.float32(colors), bandwidth=0.3, reach=reach)
    expected = [_edge_loops(masks[row], colors[row], 0.3, reach) for row in range(2)]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


def test_only_where_the_image_changes_may_a_mask():
    """A mask edge on an image edge is free, the same edge in a plain image costs, a constant mask costs nothing."""
    columns = np.arange(8) < 4
    mask = np.broadcast_to(columns, (1, 6, 8)).astype(np.float32)
    image, plain = np.repeat(mask[..., None], 3, axis=-1), np.full((1, 6, 8, 3), 0.5, np.float32)

    def loss(mask, image):
        return float(_edge_loss(jnp.asarray(mask), jnp.asarray(image), bandwidth=0.02, reach=1)[0])

    assert loss(mask, image) < 1e-12
    # 6 of the 42 pairs along rows, none of the 40 along columns, 5 of the 35 along each diagonal.
    assert loss(mask, plain) == pytest.approx((6 + 5 + 5) / (42 + 40 + 35 + 35), rel=1e-6)
    assert loss(np.full_like(mask, 0.3), image) == 0


def test_partial_cross_entropy_reads_the_seeds_alone():
    rng = np.random.default_rng(0)
    logits, foreground, background = (
        rng.normal(0, 2, (2, 3, 4)),
        np.array([[0, 5, 5], [11, 2, 0]]),
        np.array([[1], [7]]),
    )
    probabilities = 1 / (1 + np.exp(-logits.reshape(2, -1)))
    expected = [
        (
            -np.mean(np.log(probabilities[row, foreground[row]]))
            - np.mean(np.log(1 - probabilities[row, background[row]]))
        )
        / 2
        for row in range(2)
    ]
    found = _cross_entropy(jnp.float32(logits), foreground, background)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    others = np.setdiff1d(np.arange(12), [0, 5, 1])
    gradient = jax.grad(lambda x: _cross_entropy(x, foreground, background)[0])(jnp.float32(logits))
    assert (np.asarray(gradient)[0].ravel()[others] == 0).all() and (np.asarray(gradient)[1] == 0).all()


def test_cross_entropy_of_extreme_logits_is_finite():
    """Certain and right costs nothing, certain and wrong the logit itself; so do the gradients."""
    logits = jnp.float32([[[1e4, -1e4]]])
    right, wrong = (jnp.int32([[0]]), jnp.int32([[1]])), (jnp.int32([[1]]), jnp.int32([[0]]))
    for pixels, expected, slopes in ((right, 0.0, [0, 0]), (wrong, 1e4, [0.5, -0.5])):
        loss, gradient = jax.value_and_grad(lambda x: _cross_entropy(x, *pixels)[0])(logits)
        assert float(loss) == expected
        np.testing.assert_array_equal(np.asarray(gradient)[0, 0], slopes)


@pytest.mark.parametrize(
    "field, value",
    [
        *(("num_steps", 0), ("cache_gib", 0.0), ("edge_weight", float("nan")), ("calibration", "platt")),
    ],
)
def test_impossible_options_are_named(field, value):
    with pytest.raises(OptionError, match=f"{field}={value!r} must be"):
        RefineOptions(**{field: value})
