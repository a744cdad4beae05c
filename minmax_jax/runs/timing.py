"""Speed of a run and the time left, without compilation and validation."""

from collections.abc import Iterator
import contextlib
import time


def format_seconds(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class StepTimer:
    """Rate of the steps in the current window, and the time left at that rate."""

    def __init__(self):
        self._last_pause = 0.0
        self._rate = 0.0
        self._started = time.monotonic()
        self.restart()

    def restart(self) -> float:
        """Starts a window; returns the seconds before it, such as those of a first step that compiles."""
        before, self._started = self._started, time.monotonic()
        self._steps, self._paused = 0, 0.0
        return self._started - before

    def count_step(self) -> None:
        """Counts a step of this window."""
        self._steps += 1

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the time inside, such as a validation, from the rate."""
        started = time.monotonic()
        yield
        self._last_pause = time.monotonic() - started
        self._paused += self._last_pause

    def close_window(self) -> float:
        """Steps per second of this window, or of the last one with a step, or 0; starts the next window."""
        seconds = time.monotonic() - self._started - self._paused
        if self._steps:
            self._rate = self._steps / seconds
        self.restart()
        return self._rate

    def seconds_left(self, num_steps: int, num_pauses: int) -> float:
        """Time for steps at the last rate and for pauses as long as the last one."""
        return (num_steps / self._rate if self._rate else 0.0) + num_pauses * self._last_pause
