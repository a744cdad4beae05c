"""Quantiles without sorting equal NumPy's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minmax_jax.ops import order_statistics, platforms

_LEVELS = (0.0, 0.05, 0.3, 0.95, 1.0)


def _draw(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 33, 20, 1)).astype(np.float32)
    return {
        "both signs": maps,
        "ties": np.round(maps),
        "constant": np.full_like(maps, -2.5),
        "zeros of both signs": np.where(maps > 0, 0.0, -0.0).astype(np.float32),
        "all exponents": (np.sign(maps) * 10.0 ** (8 * maps)).astype(np.float32),
        "infinite": np.where(maps > 2, np.inf, np.where(maps < -2, -np.inf, maps)),
    }[kind]


@pytest.mark.parametrize("kind", ["both signs", "ties", "constant", "zeros of both signs", "all exponents"])
@pytest.mark.parametrize("sizes", [None, [(33, 20), (1, 1), (7, 16)]])
def test_they_are_those_of_numpy(kind, sizes):
    maps = _draw(kind)
    find = jax.jit(functools.partial(order_statistics.quantiles, levels=_LEVELS))
    found = find(maps, sizes=None if sizes is None else jnp.array(sizes))
    assert found.shape == (5, 3, 1, 1, 1)
    for index, image in enumerate(maps):
        height, width = (33, 20) if sizes is None else sizes[index]
        expected = np.quantile(image[:height, :width].astype(np.float64), _LEVELS)
        np.testing.assert_allclose(np.ravel(found[:, index]), expected, rtol=1e-5, atol=1e-6)


def test_ranks_between_infinite_values():
    found = order_statistics.quantiles(_draw("infinite"), (0.0, 0.5, 1.0), None)[..., 0, 0, 0]
    assert (found[0] == -np.inf).all() and np.isfinite(found[1]).all() and (found[2] == np.inf).all()


def test_exported_programs_sort():
    maps = _draw("both signs")
    with platforms.portable():
        text = jax.jit(lambda maps: order_statistics.quantiles(maps, _LEVELS, None)).lower(maps).as_text()
    assert "stablehlo.sort" in text and "stablehlo.while" not in text
    text = jax.jit(lambda maps: order_statistics.quantiles(maps, _LEVELS, None)).lower(maps).as_text()
    assert "stablehlo.sort" not in text
