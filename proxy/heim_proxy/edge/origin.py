"""Who may call from another origin: CORS as a table, and refusal of foreign origins.

Sibling hosts of one domain are same-site, so SameSite cookies do not stop one app's page from
posting to another; the Origin header does. Unsafe methods and WebSockets with a foreign Origin
are refused unless the backend lists it (decision 10; security.md N1). CORS is answered by the
proxy alone: an upstream's own CORS headers are removed where a backend configures it.
"""

from __future__ import annotations

from dataclasses import dataclass

from heim_proxy.edge.head import RequestHead
from heim_proxy.edge.responses import Refusal
from heim_proxy.routing import Backend, Cors

__all__ = ["Preflight", "cors_headers", "foreign_origin", "preflight"]


@dataclass(slots=True)
class Preflight:
    """A CORS preflight that the table allows; `headers` are complete lines of the 204 answer."""

    headers: tuple[str, ...]
    backend: str


def foreign_origin(
    head: RequestHead, backend: Backend, own_origin: str, *, user: str
) -> Refusal | None:
    """A refusal when the request was made by a page of another origin; None when it may go on.

    A browser always sends Origin on a WebSocket handshake, so a missing one is refused there; a
    missing Origin elsewhere comes from a program, unless Sec-Fetch-Site says otherwise.
    """
    origin = head.get(b"origin")
    if origin is None:
        site = head.get(b"sec-fetch-site")
        if head.upgrade is None and site in (None, b"same-origin", b"none"):
            return None
        shown = "no Origin header"
    else:
        shown = origin.decode("latin-1")
        if shown.lower() == own_origin or shown in backend.allowed_origins:
            return None
        if backend.cors is not None and shown in backend.cors.allow_origins:
            return None
    return Refusal(
        403,
        "foreign_origin",
        f"a page of another origin ({shown[:100]}) tried to use {backend.name}",
        f"if that is intended, list it under allowed_origins of backend {backend.name}",
        backend=backend.name,
        user=user,
    )


def preflight(head: RequestHead, backend: Backend) -> Preflight | Refusal | None:
    """The answer to a CORS preflight (Fetch, 4.8); None when the request is not a preflight.

    Nothing is forwarded, so it needs no session: it tells what the table says.
    """
    cors = backend.cors
    origin = head.get(b"origin")
    method = head.get(b"access-control-request-method")
    if cors is None or origin is None or method is None:
        return None
    shown = origin.decode("latin-1")
    wanted = head.get(b"access-control-request-headers") or b""
    names = {name.strip().lower() for name in wanted.decode("latin-1").split(",") if name.strip()}
    known = {name.lower() for name in cors.allow_headers}
    if (
        shown not in cors.allow_origins
        or method.decode("latin-1") not in cors.allow_methods
        or not names <= known
    ):
        return Refusal(
            403,
            "cors_refused",
            f"{backend.name} does not allow this cross-origin request",
            f"list the origin, method and headers under cors of backend {backend.name}",
            backend=backend.name,
        )
    headers = [
        *_origin_lines(cors, shown),
        "Access-Control-Allow-Methods: " + ", ".join(cors.allow_methods),
        f"Access-Control-Max-Age: {cors.max_age}",
    ]
    if cors.allow_headers:
        headers.append("Access-Control-Allow-Headers: " + ", ".join(cors.allow_headers))
    return Preflight(tuple(headers), backend.name)


def cors_headers(head: RequestHead, backend: Backend) -> bytes:
    """The CORS lines of an answer, a refusal included, so that a page can read why."""
    cors = backend.cors
    if cors is None:
        return b""
    origin = head.get(b"origin")
    shown = origin.decode("latin-1") if origin is not None else ""
    if shown not in cors.allow_origins:
        return b"Vary: Origin\r\n"
    lines = _origin_lines(cors, shown)
    if cors.expose_headers:
        lines.append("Access-Control-Expose-Headers: " + ", ".join(cors.expose_headers))
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


def _origin_lines(cors: Cors, origin: str) -> list[str]:
    lines = [f"Access-Control-Allow-Origin: {origin}", "Vary: Origin"]
    if cors.allow_credentials:
        lines.append("Access-Control-Allow-Credentials: true")
    return lines
