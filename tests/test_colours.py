"""Text and marks of the pages can be read in the light and in the dark scheme: contrasts as WCAG 2.2 computes them."""

import re

import pytest

from tests import programs

_PAGES = ("minmax_jax/serve/page.css", "minmax_jax/report/page.html.jinja")
# Ratios of level AA: 4.5 for text (1.4.3), 3 for lines of charts, bars and the mark of the focus (1.4.11).
_TEXT = [(text, behind) for text in ("ink", "soft", "bad") for behind in ("paper", "card")]
_MARKS = [(mark, behind) for mark in ("c0", "c1", "c2") for behind in ("paper", "card")]


def _luminance(colour):
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first, second):
    low, high = sorted(_luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def _schemes(page):
    """The variables of the light and of the dark scheme of a page."""
    found = re.findall(r":root \{(.*?)\}", (programs.ROOT / page).read_text())
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]+)", text)) for text in found)
    return {"light": light, "dark": light | dark}


def test_contrasts_of_known_colours():
    assert _contrast("#000", "#ffffff") == 21 and _contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", _PAGES)
def test_contrasts(page, scheme):
    colours = _schemes(page)[scheme]
    pairs = {pair: 4.5 for pair in _TEXT} | {pair: 3 for pair in _MARKS}
    if "on" in colours:
        pairs["on", "c0"] = 4.5  # the text of the button
    if page.endswith(".css"):
        pairs["c0", "line"] = 3  # the filled part of a bar
    low = {pair: _contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < pairs[pair]} == {}


@pytest.mark.parametrize("page", ["minmax_jax/serve/page.html", *_PAGES[1:], "minmax_jax/serve/answer.html.jinja"])
def test_controls_of_the_browser_follow_the_scheme(page):
    assert '<meta name="color-scheme" content="light dark">' in (programs.ROOT / page).read_text()


@pytest.mark.parametrize("page", _PAGES)
def test_no_colour_is_fixed_outside_of_the_schemes(page):
    """A colour of one scheme alone cannot be read in the other."""
    text = re.sub(r":root \{.*?\}", "", (programs.ROOT / page).read_text())
    assert re.findall(r"(?:color|background|fill|stroke)[^;}]*?(#[0-9a-f]{3,6}|rgb)", text) == []
