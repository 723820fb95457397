"""The head sent upstream: always built by us, one way for every kind of route.

The client's own fields come first (already without hop-by-hop fields, identity families and
forwarding fields, see `names`), ours after them, so nothing a client sends can stand in their
place.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

from heim_proxy.edge.head import RequestHead
from heim_proxy.edge.judge import Client

__all__ = ["client_address", "trusted_request_id", "upstream_head"]

# Hops of X-Forwarded-For that are looked at, from the right; a chain of proxies has a handful.
_HOPS: Final = 20
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")


def upstream_head(
    head: RequestHead,
    client: Client,
    *,
    path: bytes,
    identity: bytes,
    request_id: bytes,
    cookies: bytes | None,
) -> bytes:
    """The complete request head for an upstream, framing included, ending in the empty line.

    Args:
        head: The client's request.
        client: Whom it came from; its address is what the upstream is told.
        path: Path and query to send.
        identity: Complete identity header lines, or empty.
        request_id: Passed on as X-Request-Id.
        cookies: What may pass of the Cookie header, or None.
    """
    host = head.host or b""
    lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (head.method, path, host)]
    lines += head.fields
    if cookies is not None:
        lines.append(b"Cookie: " + cookies)
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.length:
        lines.append(b"Content-Length: %d" % head.length)
    elif head.method in _BODY_METHODS:
        # RFC 9110, 8.6: a method that anticipates a body says that there is none.
        lines.append(b"Content-Length: 0")
    if head.upgrade is not None:
        lines.append(b"Connection: Upgrade\r\nUpgrade: " + head.upgrade)
    ours = b"%b%b\r\nX-Request-Id: %b\r\n%b\r\n" % (client.forwarded, host, request_id, identity)
    lines.append(ours)
    return b"\r\n".join(lines)


def client_address(
    peer: str, forwarded: list[tuple[bytes, bytes]] | None, trusted: Callable[[str], bool]
) -> str:
    """The address a request really came from.

    X-Forwarded-For is believed only as far as trusted proxies wrote it: from the right, the first
    address that is not a trusted proxy. An entry that is no address ends the search, since
    whatever stands left of it was not written by a proxy of ours.
    """
    if forwarded is None or not trusted(peer):
        return peer
    chain = b",".join(value for name, value in forwarded if name == b"x-forwarded-for")
    address = peer
    for hop in reversed(chain.split(b",")[-_HOPS:] if chain else []):
        parsed = _parse_hop(hop.strip().decode("latin-1"))
        if parsed is None:
            return address
        address = parsed
        if not trusted(address):
            return address
    return address


def trusted_request_id(forwarded: list[tuple[bytes, bytes]] | None) -> bytes | None:
    """The X-Request-Id a trusted proxy sent, when it is one we can log; None otherwise."""
    for name, value in forwarded or ():
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return None


def _parse_hop(text: str) -> str | None:
    """An address as proxies write it: with a port, in brackets, with a zone, mapped into IPv6."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped if mapped is not None else address)


_BODY_METHODS: Final = frozenset((b"POST", b"PUT", b"PATCH"))
