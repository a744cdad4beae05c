"""Runs next to each other: against SciPy's tests and by hand."""

import numpy as np
import pytest
from scipy import stats

from minmax_jax.base.errors import OptionError
from minmax_jax.evaluation import comparison


def _rows(values, column="f1_foreground"):
    return [{"name": f"image_{index}", column: value} for index, value in enumerate(values)]


def test_mean_and_deviation_over_seeds():
    tables = [{"pxap": {"value": value}, "hd95": {"value": None}} for value in (70.0, 74.0, 78.0)]
    tables[0]["top5_error"] = {"value": 1.0}
    found = comparison.over_seeds([{"metrics": table} for table in tables])
    assert found == {
        "pxap": {"mean": 74.0, "deviation": 4.0, "minimum": 70.0, "maximum": 78.0, "values": [70.0, 74.0, 78.0]}
    }
    assert comparison.over_seeds([{"metrics": tables[1]}])["pxap"]["deviation"] is None


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_the_sign_flip_test_agrees_with_scipy(shift):
    rng = np.random.default_rng(1)
    first = rng.uniform(size=40)
    second = first + shift + rng.normal(0, 0.15, 40)
    found = comparison.paired(_rows(first), _rows(second)[::-1], "f1_foreground")
    expected = stats.permutation_test(
        (second - first,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=20000, rng=rng
    )
    assert found["difference"] == pytest.approx((second - first).mean()) and found["num_images"] == 40
    assert found["p_value"] == pytest.approx(expected.pvalue, abs=0.02)
    error = (second - first).std() / np.sqrt(40)
    assert found["low"] == pytest.approx(found["difference"] - 1.96 * error, abs=0.3 * error)
    assert found["high"] == pytest.approx(found["difference"] + 1.96 * error, abs=0.3 * error)


def test_equal_runs_do_not_differ():
    found = comparison.paired(_rows([0.2, 0.8, None]), _rows([0.2, 0.8, 0.5]), "f1_foreground")
    assert found == {"num_images": 2, "difference": 0, "low": 0, "high": 0, "p_value": 1}


def test_what_cannot_be_compared_is_named():
    with pytest.raises(OptionError, match="different images"):
        comparison.paired(_rows([1, 2]), _rows([1, 2, 3]), "f1_foreground")
    with pytest.raises(OptionError, match="column='hd95' is in no row"):
        comparison.paired(_rows([1, 2]), _rows([1, 2]), "hd95")
