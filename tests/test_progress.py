"""Progress on a terminal and in a log."""

import itertools
import sys

from minmax_jax.base import progress


def test_a_log_gets_a_line_every_ten_seconds(caplog, monkeypatch):
    seconds = itertools.count(step=4)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with caplog.at_level("INFO"):
        assert list(progress.track(range(8), "Checking test")) == list(range(8))
    # The clock is read at the start, after each item, and again for each line.
    assert caplog.messages == ["Checking test: 3 of 8 images.", "Checking test: 6 of 8 images."]


def test_bytes_are_shown_in_thousands_and_what_was_there_before_counts(caplog, monkeypatch):
    seconds = itertools.count(step=11)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with caplog.at_level("INFO"), progress.meter("a.zip", total=4_000_000, unit="B", initial=1_000_000) as update:
        update(500_000)
    assert caplog.messages == ["a.zip: 1.50MB of 4.00MB."]


def test_a_terminal_gets_a_bar(caplog, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with caplog.at_level("INFO"):
        assert list(progress.track("abc", "Writing", unit="file")) == ["a", "b", "c"]
    assert "3/3" in capsys.readouterr().err and not caplog.messages
