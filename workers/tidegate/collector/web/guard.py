"""Guard: what every request must pass before a route sees it, and what every answer carries.

Read-only, so GET and HEAD are all there is. With a token, whoever asks must know it (a bearer token, or the password of
HTTP basic authentication, which browsers ask for). Without one the collector listens on loopback, where the Host header
must name it: otherwise a page elsewhere could read it by rebinding its own name.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
MAX_QUERY = 1_000

#: Open without a token, because health checks have none; it says nothing but whether it is well.
OPEN_PATHS = frozenset({"/healthz"})

# plotly makes an empty style element and fills it by script, which is allowed once the empty one is: this is the hash of
# nothing, so no style that comes with a page's text is ever applied.
_EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self' {_EMPTY_STYLE}; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Wraps an ASGI app. ``names``: Host names that are answered, None for any."""

    def __init__(self, app: ASGIApp, *, token: str | None = None, names: frozenset[str] | None = None) -> None:
        self._app = app
        self._token = token.encode() if token else None
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return _refused(405, "this server only shows things", Allow="GET, HEAD")
        if len(scope.get("query_string", b"")) > MAX_QUERY:
            return _refused(414, "the query is too long")
        if self._names is not None and _host_name(headers.get("host", "")) not in self._names:
            return _refused(421, "this server does not answer to that name")
        if self._token and scope["path"] not in OPEN_PATHS and not self._knows_token(headers.get("authorization", "")):
            return _refused(401, "the collector's token is needed", **{"WWW-Authenticate": 'Basic realm="tidegate"'})
        return None

    def _knows_token(self, authorization: str) -> bool:
        kind, _, value = authorization.partition(" ")
        given = value.strip().encode()
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(given, self._token or b"")


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _refused(status: int, why: str, **headers: str) -> Response:
    return JSONResponse({"error": why}, status_code=status, headers=headers)
