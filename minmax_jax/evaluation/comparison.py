"""Runs next to each other: mean and deviation over seeds, and whether two runs differ on the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minmax_jax.base.errors import OptionError
from minmax_jax.evaluation.evaluators import Row

_RESAMPLES = 10_000
_BLOCK = 500


def over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each metric over runs that differ in their seed.

    Args:
        results: contents of `results.json`.

    Returns:
        {name: {"mean", "deviation" (of a sample; None of one run), "minimum", "maximum", "values"}} of the metrics that
        all runs have.
    """
    tables = [content["metrics"] for content in results]
    common = [name for name in tables[0] if all(_has_value(table, name) for table in tables)]
    summary = {}
    for name in common:
        values = [table[name]["value"] for table in tables]
        summary[name] = {
            "mean": float(np.mean(values)),
            "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "minimum": min(values),
            "maximum": max(values),
            "values": values,
        }
    return summary


def _has_value(table: Mapping[str, Any], name: str) -> bool:
    return table.get(name, {}).get("value") is not None


def paired(first: Sequence[Row], second: Sequence[Row], column: str, *, seed: int = 0) -> dict[str, Any]:
    """Whether two runs differ in a number of the images that both evaluated.

    The test flips the sign of each image's difference at random: if the runs were alike, either could have been either.
    It says nothing of other trainings of the same two recipes.

    Args:
        first: rows of `predictions.jsonl`.
        second: those of the other run, of the same images.
        column: a number of the rows, such as "f1_foreground"; images where one of the two is null are left out.
        seed: of the resamples.

    Returns:
        "num_images", "difference" (mean of second - first), its 95 % bootstrap interval "low" and "high", and the
        two-sided "p_value" of the sign-flip test.

    Raises:
        OptionError: if the runs have other images, or no image with that number.

    Example:
        The second run is better by 10 points on each of 20 images, which chance does not do:

        >>> from minmax_jax.evaluation import comparison
        >>> first = [{"name": f"image{i}", "f1_foreground": 0.5 + i / 100} for i in range(20)]
        >>> second = [row | {"f1_foreground": row["f1_foreground"] + 0.1} for row in first]
        >>> found = comparison.paired(first, second, "f1_foreground")
        >>> found["num_images"], round(found["difference"], 2), found["p_value"] < 0.001
        (20, 0.1, True)
    """
    of_second = {row["name"]: row for row in second}
    if {row["name"] for row in first} != of_second.keys():
        raise OptionError("The two runs were evaluated on different images: they cannot be compared image by image.")
    pairs = [(row.get(column), of_second[row["name"]].get(column)) for row in first]
    differences = np.array([b - a for a, b in pairs if a is not None and b is not None], float)
    if not len(differences):
        raise OptionError(f"column={column!r} is in no row of both runs.")
    rng, means, flipped = np.random.default_rng(seed), [], []
    for _ in range(_RESAMPLES // _BLOCK):
        drawn = rng.integers(len(differences), size=(_BLOCK, len(differences)))
        means.append(differences[drawn].mean(axis=1))
        signs = rng.choice([-1.0, 1.0], size=(_BLOCK, len(differences)))
        flipped.append((signs * differences).mean(axis=1))
    observed = float(differences.mean())
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    # Rounding must not make an equal sum a smaller one; the observed signs are one of the possible choices.
    as_great = np.abs(np.concatenate(flipped)) >= abs(observed) * (1 - 1e-9)
    return {
        "num_images": len(differences),
        "difference": observed,
        "low": float(low),
        "high": float(high),
        "p_value": float((1 + as_great.sum()) / (1 + _RESAMPLES)),
    }
