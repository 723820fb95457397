"""What a target is told about its user: a PROXY protocol header, version 2.

Sans-IO. Every field has its length in front, so that no name and no address can end one or begin
another. Cited sections are of haproxy's proxy-protocol.txt.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

from heim_agent.complaints import clean

__all__ = ["USER_TLV", "proxy_header"]

USER_TLV: Final = 0xE0
"""PP2_TYPE_MIN_CUSTOM, the first type of one's own (2.2.8): the user's name, UTF-8."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY: Final = 0x21
"""Version 2, command PROXY (2.2)."""
_UNSPEC: Final = 0x00
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_MAX_NAME_BYTES: Final = 255

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def proxy_header(*, source: str, user: str, peer: object) -> bytes:
    """The bytes that go before everything else.

    Args:
        source: Address of the user's device; anything else makes it "unknown" (UNSPEC).
        user: Who it is, for the TLV; nobody ("") leaves it out.
        peer: Where we are connected to, as `socket.getpeername` gives it. Of a unix socket the
            destination is all zeros.
    """
    family, addresses = _addresses(_address(source), peer)
    name = clean(user, _MAX_NAME_BYTES).encode()
    tlv = struct.pack("!BH", USER_TLV, len(name)) + name if name else b""
    length = len(addresses) + len(tlv)
    return _SIGNATURE + struct.pack("!BBH", _PROXY, family, length) + addresses + tlv


def _addresses(source: Address | None, peer: object) -> tuple[int, bytes]:
    """Family and address block; the port of the user's device is not known, and 0."""
    if source is None:
        return _UNSPEC, b""
    there: Address | None = None
    port = 0
    if isinstance(peer, tuple) and len(peer) >= 2:
        there, port = _address(str(peer[0])), int(peer[1])
    if there is None:
        there = type(source)(0)
    if source.version == there.version == 4:
        return _TCP4, struct.pack("!4s4sHH", source.packed, there.packed, 0, port)
    # One family for both (2.2): IPv4 as the IPv6 that it maps to.
    return _TCP6, struct.pack("!16s16sHH", _mapped(source), _mapped(there), 0, port)


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _mapped(address: Address) -> bytes:
    if address.version == 6:
        return address.packed
    return b"\0" * 10 + b"\xff\xff" + address.packed
