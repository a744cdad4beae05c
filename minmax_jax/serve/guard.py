"""What keeps other pages and other machines out: the names under which the page may be asked for, and its policy."""

from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

HEADERS = {
    # Nothing but what this server sends; pictures are made in the page (data, blob).
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def wrap(application: Callable[..., Any], *, port: int) -> Callable[..., Any]:
    """An ASGI application that answers requests to this machine by its own page alone.

    A page of another site can make a browser ask this server, under a name that it lets point to 127.0.0.1 (DNS
    rebinding) or by a form. Such requests carry that name as Host, or that site as Origin.

    Args:
        application: behind it.
        port: of the server.
    """
    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    hosts += ["127.0.0.1", "localhost"] if port == 80 else []
    origins = [f"http://{host}" for host in hosts]

    async def guarded(scope, receive, send):
        """The application as ASGI has it: refuses foreign hosts and origins, adds the headers to every answer."""

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = application
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if headers.get("host", "").lower() not in hosts:
                answer = PlainTextResponse(f"This page is http://{hosts[0]}/, to this machine alone.\n", 403)
            elif headers.get("origin", origins[0]).lower() not in origins:
                answer = PlainTextResponse("Requests of other pages are refused.\n", 403)
        await answer(scope, receive, send_with_headers)

    return guarded
