"""What is done at test time: as the run, or as a user says; what the model cannot do is refused."""

from minmax_jax.experiments import program
import pytest

from minmax_jax.base.errors import OptionError
from minmax_jax.runs import inference_options

_NONE, _BOTH = ({"horizontal": value, "vertical": value} for value in (False, True))
_LEFT_RIGHT = {"horizontal": True, "vertical": False}


def _card(*, refine=True, **changes):
    card = {
        "flips": _NONE,
        "training_flips": _LEFT_RIGHT,
        "scales": [1.0, 1.5],
        "refine": {"enabled": refine, "width": 32},
    }
    return card | changes


def test_without_a_choice_it_is_that_of_the_run():
    card = _card()
    assert inference_options.choose(card) == card
    assert inference_options.describe(card) == {"flips": _NONE, "scales": [1.0, 1.5], "refine": True}


@pytest.mark.parametrize(
    ("changes", "flips", "expected"),
    [
        ({}, True, _LEFT_RIGHT),
        ({"flips": _BOTH}, True, _BOTH),
        ({"flips": _BOTH}, False, _NONE),
        ({"training_flips": _NONE}, False, _NONE),
    ],
)
def test_flips_are_those_of_the_training(changes, flips, expected):
    card = _card(**changes)
    assert inference_options.choose(card, flips=flips)["flips"] == expected
    assert card == _card(**changes)  # the card itself is as it was


def test_other_choices():
    chosen = inference_options.choose(_card(), scales=(1, 2), refine=False)
    assert chosen["scales"] == [1.0, 2.0]
    assert chosen["refine"] == {"enabled": False, "width": 32}
    assert inference_options.choose(_card(refine=False), refine=False)["refine"]["enabled"] is False


@pytest.mark.parametrize(
    ("card", "options", "message"),
    [
        (_card(refine=False), {"refine": True}, "refine=True needs a second stage, .* minmax-jax refine"),
        (_card(training_flips=_NONE), {"flips": True}, "flips=True averages over the mirror images of training"),
        (_card(), {"scales": ()}, r"scales=\(\) must name"),
        (_card(), {"scales": (1.0, 0.01)}, "scales=\\(1.0, 0.01\\) must be numbers from 0.1 to 8"),
        (_card(), {"scales": (float("nan"),)}, r"scales=\(nan,\)"),
    ],
)
def test_what_a_model_cannot_do_is_refused(card, options, message):
    with pytest.raises(OptionError, match=message):
        inference_options.choose(card, **options)


def test_sizes_on_the_command_line():
    assert program.read_scales(None) is None and program.read_scales(["0.75", "1"]) == (0.75, 1.0)
    with pytest.raises(OptionError, match="scales='1,large' must be numbers"):
        program.read_scales(["1", "large"])
