"""Which requests are challenges of an ACME authority, and what is sent to whoever answers them.

The only way past every login, so it is as narrow as the authority's own request (RFC 8555, 8.3):
plain http, GET or HEAD, HTTP/1.1, one exact path without a query, no body, no upgrade. Everything
else that looks alike is judged like any other request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from heim_proxy.edge.head import RequestHead
from heim_proxy.routing import Route
from heim_proxy.target import canonical_host

if TYPE_CHECKING:
    from heim_proxy.snapshot import Snapshot

__all__ = ["ANSWER_HEADERS", "challenge", "challenge_head"]

# Who answers for a host need not be who serves it: what it says must not run in a browser there.
ANSWER_HEADERS: Final = (
    b"X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; sandbox\r\n"
)
_METHODS: Final = frozenset((b"GET", b"HEAD"))
# All that an answer could depend on; whatever else came is nobody's business there.
_PASSED: Final = ((b"user-agent", b"User-Agent"), (b"accept", b"Accept"))


def challenge(head: RequestHead, snapshot: Snapshot) -> tuple[str, Route] | None:
    """The canonical host and the route of a request on plain http; None when it is no challenge."""
    target = head.target
    if (
        head.method not in _METHODS
        or target.raw != target.path
        or target.query
        or head.absolute
        or head.has_body
        or head.upgrade is not None
        or head.version != b"HTTP/1.1"
    ):
        return None
    host = canonical_host(head.host or b"")
    route = snapshot.challenges.find(host, target.raw) if host is not None else None
    return None if host is None or route is None else (host, route)


def challenge_head(head: RequestHead, *, path: bytes, host: str) -> bytes:
    """The complete request head for whoever answers, ending in the empty line.

    Nothing says who asks or what they are to us: no cookies, no Authorization, no addresses.

    Args:
        head: The client's request.
        path: The path of the challenge.
        host: The canonical host that it is for.
    """
    lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (head.method, path, host.encode("ascii"))]
    for name, spelled in _PASSED:
        value = head.get(name)
        if value is not None:
            lines.append(b"%b: %b" % (spelled, value))
    lines.append(b"\r\n")
    return b"\r\n".join(lines)
