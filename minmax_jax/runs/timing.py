"""How fast a run goes and how long it will take, compilation and validation apart."""

from collections.abc import Iterator
import contextlib
import time


def format_seconds(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class StepTimer:
    """Rate of the steps since the last window was closed, and the time that is left at that rate."""

    def __init__(self):
        self._last_pause = 0.0
        self._rate = 0.0
        self._started = time.monotonic()
        self.restart()

    def restart(self) -> float:
        """Begins a window; what came before, such as a first step that compiles, is not measured, but returned."""
        before, self._started = self._started, time.monotonic()
        self._steps, self._paused = 0, 0.0
        return self._started - before

    def count_step(self) -> None:
        """One more step in this window."""
        self._steps += 1

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves out of the rate what happens inside: a validation."""
        started = time.monotonic()
        yield
        self._last_pause = time.monotonic() - started
        self._paused += self._last_pause

    def close_window(self) -> float:
        """Steps per second of this window, or of the last that had a step, 0 before any; begins the next."""
        seconds = time.monotonic() - self._started - self._paused
        if self._steps:
            self._rate = self._steps / seconds
        self.restart()
        return self._rate

    def seconds_left(self, num_steps: int, num_pauses: int) -> float:
        """Time for steps at the last window's rate and pauses as long as the last."""
        return (num_steps / self._rate if self._rate else 0.0) + num_pauses * self._last_pause
