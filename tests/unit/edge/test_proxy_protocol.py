from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_proxy.edge.proxy_protocol import (
    MAX_HEADER_BYTES,
    Header,
    ProxyProtocolError,
    parse,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, payload: bytes, *, version: int = 2) -> bytes:
    fixed = struct.pack("!BBH", version << 4 | command, family, len(payload))
    return SIGNATURE + fixed + payload


TCP4 = socket.inet_aton("203.0.113.9") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 5, 443)
TCP6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 50000, 443)
)
TLV = b"\x04\x00\x03abc"

GOOD = {
    "v1-tcp4": (b"PROXY TCP4 203.0.113.9 10.0.0.1 50000 443\r\n", ("203.0.113.9", 50000)),
    "v1-tcp6": (b"PROXY TCP6 2001:DB8::9 ::1 1 65535\r\n", ("2001:db8::9", 1)),
    "v1-longest": (
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        b" ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1-unknown-with-more": (b"PROXY UNKNOWN ff:: anything 1 2\r\n", None),
    "v2-tcp4": (v2(1, 0x11, TCP4), ("203.0.113.9", 5)),
    "v2-tcp6": (v2(1, 0x21, TCP6), ("2001:db8::9", 50000)),
    "v2-tlv": (v2(1, 0x11, TCP4 + TLV), ("203.0.113.9", 5)),
    "v2-longest": (v2(1, 0x11, TCP4 + b"\x04" * 500), ("203.0.113.9", 5)),
    "v2-local": (v2(0, 0x11, TCP4), None),
    "v2-local-empty": (v2(0, 0x00, b""), None),
    "v2-local-odd-family": (v2(0, 0xFF, b"??"), None),
    "v2-unspec": (v2(1, 0x00, b""), None),
    "v2-unix": (v2(1, 0x31, bytes(216)), None),
}

BAD = {
    "tls": b"\x16\x03\x01\x02\x00\x01",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "post": b"POST / HTTP/1.1\r\n",
    "proxy-without-space": b"PROXYTCP4 ",
    "lower-case": b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    "two-spaces": b"PROXY TCP4  203.0.113.9 10.0.0.1 50000 443\r\n",
    "trailing-space": b"PROXY TCP4 203.0.113.9 10.0.0.1 50000 443 \r\n",
    "tab": b"PROXY TCP4\t203.0.113.9 10.0.0.1 50000 443\r\n",
    "no-ports": b"PROXY TCP4 203.0.113.9 10.0.0.1\r\n",
    "port-too-large": b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
    "port-negative": b"PROXY TCP4 203.0.113.9 10.0.0.1 -1 443\r\n",
    "port-leading-zero": b"PROXY TCP4 203.0.113.9 10.0.0.1 080 443\r\n",
    "octal-address": b"PROXY TCP4 010.0.113.9 10.0.0.1 80 443\r\n",
    "short-address": b"PROXY TCP4 10.1 10.0.0.1 80 443\r\n",
    "v6-in-tcp4": b"PROXY TCP4 ::1 ::1 80 443\r\n",
    "v4-in-tcp6": b"PROXY TCP6 10.0.0.1 10.0.0.1 80 443\r\n",
    "bad-destination": b"PROXY TCP4 10.0.0.1 10.0.0.256 80 443\r\n",
    "zone": b"PROXY TCP6 fe80::1%eth0 ::1 80 443\r\n",
    "udp": b"PROXY UDP4 10.0.0.1 10.0.0.1 80 443\r\n",
    "unknown-run-on": b"PROXY UNKNOWNX\r\n",
    "bare-cr": b"PROXY TCP4 10.0.0.1 10.0.0.1 80 443\rX",
    "too-long": b"PROXY UNKNOWN " + b"x" * 93,
    "too-long-with-crlf": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v2-version-1": v2(1, 0x11, TCP4, version=1),
    "v2-version-3": v2(1, 0x11, TCP4, version=3),
    "v2-command-2": v2(2, 0x11, TCP4),
    "v2-udp": v2(1, 0x12, TCP4),
    "v2-family-4": v2(1, 0x41, TCP4),
    "v2-short-tcp4": v2(1, 0x11, TCP4[:-1]),
    "v2-short-tcp6": v2(1, 0x21, TCP4),
    "v2-short-unix": v2(1, 0x31, bytes(215)),
    "v2-too-long": v2(1, 0x11, TCP4 + bytes(501)),
    "v2-huge": SIGNATURE + b"\x21\x11\xff\xff",
    "signature-off-by-one": SIGNATURE[:-1] + b"\r",
}


@pytest.mark.parametrize(("data", "source"), GOOD.values(), ids=GOOD)
def test_a_header_names_the_client_and_its_own_length(
    data: bytes, source: tuple[str, int] | None
) -> None:
    assert parse(data + b"\x16\x03\x01 what follows") == Header(source, len(data))


@pytest.mark.parametrize(("data", "source"), GOOD.values(), ids=GOOD)
def test_a_header_in_pieces_is_more_until_it_is_whole(
    data: bytes, source: tuple[str, int] | None
) -> None:
    assert [parse(data[:end]) for end in range(len(data))] == [None] * len(data)
    assert parse(data) == Header(source, len(data))


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        parse(data)


def test_bytes_that_cannot_become_a_header_are_refused_at_the_first_of_them() -> None:
    with pytest.raises(ProxyProtocolError):
        parse(b"G")
    with pytest.raises(ProxyProtocolError):
        parse(b"PROXX")


@given(st.binary(max_size=MAX_HEADER_BYTES + 20))
def test_no_bytes_crash_it_and_it_never_asks_for_more_than_the_limit(tail: bytes) -> None:
    for data in (tail, b"PROXY " + tail, SIGNATURE + tail, SIGNATURE + b"\x21\x11" + tail):
        try:
            header = parse(data)
        except ProxyProtocolError:
            continue
        if header is None:
            assert len(data) < MAX_HEADER_BYTES
        else:
            assert header.length <= min(len(data), MAX_HEADER_BYTES)
