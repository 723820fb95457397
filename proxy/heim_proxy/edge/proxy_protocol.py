"""The PROXY protocol, versions 1 and 2: what a load balancer says about the real client.

Sans-IO: bytes in, a header out, or "more", or an error. Where a header is expected it is
mandatory and comes before everything else, TLS included; the specification forbids guessing
whether one is there. Cited sections are of haproxy's proxy-protocol.txt.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_HEADER_BYTES", "Header", "ProxyProtocolError", "parse"]

# "a 108-byte buffer is always enough to store all the line and a trailing zero" (2.1).
MAX_V1_BYTES: Final = 107

_V2_FIXED_BYTES: Final = 16
# Addresses take 36 bytes at most for TCP. The type-length-values after them that balancers send
# (endpoint ids, ALPN, authority, a unique id, the TLS sub-block with a subject) stay below 400;
# the field could say 65,535, which nobody who speaks for a stranger needs.
MAX_V2_PAYLOAD_BYTES: Final = 512

MAX_HEADER_BYTES: Final = _V2_FIXED_BYTES + MAX_V2_PAYLOAD_BYTES

_V1_START: Final = b"PROXY "
_V2_START: Final = b"\r\n\r\n\x00\r\nQUIT\n"

# Exactly one space between fields (2.1); a port without leading zeros.
_V1_TCP: Final = re.compile(
    rb"PROXY TCP([46]) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39})"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)


class ProxyProtocolError(Exception):
    """What arrived is not a PROXY header that we take; the connection must be closed."""


@dataclass(frozen=True, slots=True)
class Header:
    """A complete header of `length` bytes.

    `source` is the client's address and port. None means that the balancer speaks for itself
    (LOCAL: a health check) or does not know: then the connection's own peer stands.
    """

    source: tuple[str, int] | None
    length: int


class _Family(enum.IntEnum):
    """Address family and transport of version 2 (2.2), as one byte."""

    UNSPEC = 0x00
    TCP4 = 0x11
    TCP6 = 0x21
    UNIX_STREAM = 0x31


_ADDRESS_BYTES: Final = {
    _Family.UNSPEC: 0,
    _Family.TCP4: 4 + 4 + 2 + 2,
    _Family.TCP6: 16 + 16 + 2 + 2,
    _Family.UNIX_STREAM: 108 + 108,
}


def parse(data: bytes) -> Header | None:
    """Read a header from the start of a connection.

    Args:
        data: Everything received so far, from the first byte.

    Returns:
        The header, or None while `data` is only the beginning of one; bytes after `length` belong
        to what follows.

    Raises:
        ProxyProtocolError: As soon as it cannot become a header.
    """
    if data[: len(_V1_START)] == _V1_START[: len(data)]:
        return _parse_v1(data)
    if data[: len(_V2_START)] == _V2_START[: len(data)]:
        return _parse_v2(data)
    raise ProxyProtocolError("the connection does not begin with a PROXY header")


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r", 0, MAX_V1_BYTES)
    if end < 0 or end + 1 == len(data):
        # One byte must be left for the line feed.
        if len(data) >= MAX_V1_BYTES:
            raise ProxyProtocolError(f"a version 1 header exceeds {MAX_V1_BYTES} bytes")
        return None
    line = data[: end + 2]
    if not line.endswith(b"\r\n") or len(line) > MAX_V1_BYTES:
        raise ProxyProtocolError("a version 1 header does not end with CRLF")
    if line == b"PROXY UNKNOWN\r\n" or line.startswith(b"PROXY UNKNOWN "):
        # "the receiver must ignore anything presented before the CRLF" (2.1)
        return Header(None, len(line))
    found = _V1_TCP.fullmatch(line)
    if found is None:
        raise ProxyProtocolError("a version 1 header is malformed")
    version, source, destination, port, other_port = found.groups()
    make = ipaddress.IPv4Address if version == b"4" else ipaddress.IPv6Address
    try:
        address = str(make(source.decode("ascii")))
        make(destination.decode("ascii"))
    except ValueError as error:
        raise ProxyProtocolError("a version 1 header holds a bad address") from error
    if max(int(port), int(other_port)) > 0xFFFF:
        raise ProxyProtocolError("a version 1 header holds a bad port")
    return Header((address, int(port)), len(line))


def _parse_v2(data: bytes) -> Header | None:
    if len(data) < _V2_FIXED_BYTES:
        return None
    version, command = data[12] >> 4, data[12] & 0x0F
    if version != 2 or command > 1:
        raise ProxyProtocolError("a version 2 header has an unknown version or command")
    payload = int.from_bytes(data[14:16], "big")
    if payload > MAX_V2_PAYLOAD_BYTES:
        raise ProxyProtocolError(f"a version 2 header exceeds {MAX_HEADER_BYTES} bytes")
    length = _V2_FIXED_BYTES + payload
    if command == 0:
        # LOCAL: "the receiver must use the real connection endpoints" whatever the family (2.2).
        return Header(None, length) if len(data) >= length else None
    try:
        family = _Family(data[13])
    except ValueError as error:
        # UDP and the unassigned: "Receivers must drop connections presenting unexpected values".
        raise ProxyProtocolError("a version 2 header is not about a TCP connection") from error
    if payload < _ADDRESS_BYTES[family]:
        raise ProxyProtocolError("a version 2 header is shorter than its addresses")
    if len(data) < length:
        return None
    return Header(_source(family, data), length)


def _source(family: _Family, data: bytes) -> tuple[str, int] | None:
    if family is _Family.TCP4:
        return str(ipaddress.IPv4Address(data[16:20])), int.from_bytes(data[24:26], "big")
    if family is _Family.TCP6:
        return str(ipaddress.IPv6Address(data[16:32])), int.from_bytes(data[48:50], "big")
    # A balancer's own unix socket says nothing about where the client is.
    return None
