"""The server of the page: on 127.0.0.1 alone, until Ctrl-C or SIGTERM."""

import asyncio
import errno
import importlib.util
import os
import socket
import threading
from typing import Any

from minmax_jax.base import options as options_lib
from minmax_jax.base.errors import OptionError, UserError

ADDRESS = "127.0.0.1"
_PACKAGES = ("starlette", "uvicorn")
_SECONDS_TO_ASK = 10.0  # from the beginning of a connection to the end of the head of its request
_SECONDS_TO_END = 2  # that a prediction under way has when the server is stopped


def check_packages() -> None:
    """Raises UserError where the packages of the extra `serve` are missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"The page needs {' and '.join(missing)}: pip install 'minmax_jax[serve]'")


def listen(port: int) -> socket.socket:
    """A socket of this machine that listens.

    Args:
        port: from 1 to 65535, or 0 for one that is free.

    Raises:
        OptionError: for a port that is in use, not allowed, or none.
    """
    options_lib.check_range("port", port, 0, 65535)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would share the port with another program
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"port={port} is in use by another program. Give another port, or 0 for a free one; a server of yours"
                " that is still running is ended by Ctrl-C in its terminal."
            ) from error
        raise OptionError(
            f"port={port} cannot be used ({error.strerror}). Choose another, or 0 for a free one."
        ) from error
    return listener


def run(listener: socket.socket, application: Any) -> None:
    """Serves an application until a signal ends it, which is then raised again.

    Args:
        listener: as of `listen`.
        application: as of `application.create`.
    """
    running = create(application)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        running.run(sockets=[listener])
        return
    # A notebook has a loop in this thread, and a thread has one loop.
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        thread.join()
    finally:
        running.should_exit = True
        thread.join()


def create(application: Any) -> Any:
    """A `uvicorn.Server` of an application."""
    import uvicorn
    from uvicorn.protocols.http import h11_impl

    class Protocol(h11_impl.H11Protocol):
        """Closes connections that send no complete request: their number is limited, and uvicorn waits for ever."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(_SECONDS_TO_ASK, self._close_if_stalled)

        def _close_if_stalled(self) -> None:
            if self.transport.is_closing():
                return
            is_idle = self.cycle is None or self.cycle.response_complete
            # Nothing yet, or the beginning of a further request.
            if is_idle and (self.cycle is None or self.conn.trailing_data[0]):
                self.transport.close()
            else:
                self.loop.call_later(_SECONDS_TO_ASK, self._close_if_stalled)

    options = uvicorn.Config(
        application,
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    return uvicorn.Server(options)
