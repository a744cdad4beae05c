"""What keeps other pages and other machines out: the names under which the page may be asked for, and its policy."""

from collections.abc import Callable
import dataclasses
import re
from typing import Any
import urllib.parse

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse

from minmax_jax.base.errors import OptionError

HEADERS = {
    # Nothing but what this server sends; pictures are made in the page (data, blob).
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The origin of a form must be sent, to this server alone.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
# Names that no other machine can take. The port is that of a tunnel or of a proxy on this machine, and may be any.
_OF_THIS_MACHINE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclasses.dataclass(frozen=True)
class PublicUrl:
    """The address under which browsers find the page behind a proxy.

    Attributes:
        origin: scheme, name and port as browsers write them: without the scheme's own port.
        path: decoded; begins with a slash and does not end with one; "/" itself is "".
    """

    origin: str
    path: str

    def is_host(self, host: str) -> bool:
        """Whether the header Host has this address; some proxies add the scheme's own port."""
        scheme, _, own = self.origin.partition("://")
        return host in (own, f"{own}:{_DEFAULT_PORTS[scheme]}")


def parse_url(public_url: str) -> PublicUrl | None:
    """The parts of an address, None for "".

    Raises:
        OptionError: for anything but http or https, a name, an optional port and a path.
    """
    if not public_url:
        return None
    try:
        parts = urllib.parse.urlsplit(public_url)
        port = str(parts.port or "")
    except ValueError:  # a port that is no number, brackets that are not closed
        parts = port = None
    name = parts.hostname if parts else None
    if not name or parts.scheme not in _DEFAULT_PORTS or parts.query or parts.fragment or "@" in parts.netloc:
        raise OptionError(
            f"public_url={public_url!r} must be an address such as https://example.org/ or"
            " https://example.org:8443/path/."
        )
    name = f"[{name}]" if ":" in name else name
    ending = "" if port in ("", _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    # Requests have their path decoded: "%40" of a user's name is "@".
    return PublicUrl(f"{parts.scheme}://{name}{ending}", urllib.parse.unquote(parts.path).rstrip("/"))


def wrap(application: Callable[..., Any], *, port: int, public_url: PublicUrl | None = None) -> Callable[..., Any]:
    """An ASGI application that answers requests under a name of this machine, or its public one, by its own page alone.

    A page of another site can make a browser ask this server, under a name that it lets point to 127.0.0.1 (DNS
    rebinding) or by a form. Such requests carry that name as Host, or that site as Origin. A name of this machine is
    none that a site can have, at any port: a tunnel may use another port than the server.

    Args:
        application: behind it.
        port: of the server.
        public_url: of a proxy, which may or may not remove the path before it asks here.
    """

    async def guarded(scope, receive, send):
        """The application as ASGI has it: refuses foreign hosts and origins, adds the headers to every answer."""

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = application
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "").lower()
            origins = _origins(host, port, public_url)
            if not origins:
                answer = PlainTextResponse(
                    f"This page is http://127.0.0.1:{port}/. It is refused under the name {host!r}: if that is its"
                    " address behind a proxy, start it with public_url.\n",
                    403,
                )
            elif headers.get("origin", origins[0]).lower() not in origins:
                answer = PlainTextResponse("Requests of other pages are refused.\n", 403)
            elif public_url and public_url.path == scope["path"]:
                answer = RedirectResponse(public_url.path + "/")  # the page's own addresses are relative to it
            elif public_url:
                scope = _without(public_url.path, scope)
        await answer(scope, receive, send_with_headers)

    return guarded


def _origins(host: str, port: int, public_url: PublicUrl | None) -> list[str]:
    """The pages that may ask under a name, which are those of this server; none under a foreign name."""
    public = [public_url.origin] if public_url else []
    if _OF_THIS_MACHINE.fullmatch(host):
        # Its own, whichever name each of both has, and that of a tunnel: what the browser asked for.
        return [f"http://{host}", f"http://127.0.0.1:{port}", f"http://localhost:{port}", *public]
    return public if public_url and public_url.is_host(host) else []


def _without(path: str, scope: dict[str, Any]) -> dict[str, Any]:
    """The request without the path of the public address, if it begins with that."""
    if not path or not scope["path"].startswith(path + "/"):
        return scope
    return scope | {"path": scope["path"][len(path) :]}
