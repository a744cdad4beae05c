"""What is done at test time: the choices of a run, as its model card has them, and other ones."""

from collections.abc import Sequence
from typing import Any

from minmax_jax.base import options
from minmax_jax.base.errors import OptionError


def choose(
    card: dict[str, Any],
    *,
    flips: bool | None = None,
    scales: Sequence[float] | None = None,
    refine: bool | None = None,
) -> dict[str, Any]:
    """A model card with other choices; None keeps the run's.

    Args:
        card: content of `model_card.json`.
        flips: whether predictions are means over the mirror images of training.
        scales: sizes of the image, as shares, that predictions are means over.
        refine: whether masks are those of the second stage.

    Raises:
        OptionError: for scales out of range, and for what the model cannot do.
    """
    card = dict(card)
    if flips is not None:
        card["flips"] = _choose_flips(card, flips)
    if scales is not None:
        options.check_sizes("scales", scales)
        card["scales"] = list(map(float, scales))
    if refine and not card["refine"]["enabled"]:
        raise OptionError("refine=True needs a second stage, and this model has none: run minmax-jax refine first.")
    if refine is not None:
        card["refine"] = card["refine"] | {"enabled": refine}
    return card


def _choose_flips(card: dict[str, Any], flips: bool) -> dict[str, bool]:
    if not flips:
        return {"horizontal": False, "vertical": False}
    if any(card["flips"].values()):
        return card["flips"]
    if not any(card["training_flips"].values()):
        raise OptionError("flips=True averages over the mirror images of training, and it had none: leave it out.")
    return card["training_flips"]


def describe(card: dict[str, Any]) -> dict[str, Any]:
    """The choices of a card, as JSON values."""
    return {
        "flips": card["flips"],
        "scales": card["scales"],
        "refine": card["refine"]["enabled"],
    }
