"""Ctrl-C and SIGTERM: held back while something is written, and never lost. Python delivers them to the main thread."""

from collections.abc import Callable, Iterator
import contextlib
import signal
import threading

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delivers the signals of the block after it."""
    with _replaced(lambda received, before: lambda number, frame: received.append(number)) as received:
        yield
    if received:
        signal.raise_signal(received[0])


@contextlib.contextmanager
def remembered() -> Iterator[Callable[[], None]]:
    """Yields a function that delivers again a signal of the block that ended nothing.

    The exception of a signal that arrives in the callback of a library is printed there, and the program goes on.
    """

    def remember(received, before):
        def handle(number, frame):
            received.append(number)
            before(number, frame)

        return handle

    with _replaced(remember) as received:

        def check() -> None:
            if received:
                signal.raise_signal(received[0])

        yield check


@contextlib.contextmanager
def _replaced(create_handler) -> Iterator[list[int]]:
    """Replaces the handlers that are Python functions; yields the numbers of the signals that arrived."""
    received: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: handler for number in _NUMBERS if callable(handler := signal.getsignal(number))}
    for number, handler in handlers.items():
        signal.signal(number, create_handler(received, handler))
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
