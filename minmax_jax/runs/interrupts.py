"""Ctrl-C and SIGTERM, held back while something is written that must not be cut short."""

from collections.abc import Iterator
import contextlib
import signal
import threading


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delivers the signals of the block after it. Python delivers them to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
