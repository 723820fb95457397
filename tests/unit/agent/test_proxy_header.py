from __future__ import annotations

import ipaddress
import struct

import pytest

from heim_agent.proxy_header import USER_TLV, proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def read(header: bytes) -> tuple[int, list[tuple[str, int]], dict[int, bytes]]:
    """Family, addresses with ports and TLVs of a header; written from the specification (2.2)."""
    assert header[:12] == SIGNATURE
    command, family, length = struct.unpack_from("!BBH", header, 12)
    assert command == 0x21
    rest = header[16:]
    assert len(rest) == length
    size = {0x00: 0, 0x11: 4, 0x21: 16}[family]
    addresses = []
    if size:
        packed = (rest[:size], rest[size : 2 * size])
        ports = struct.unpack_from("!HH", rest, 2 * size)
        addresses = [
            (str(ipaddress.ip_address(one)), port) for one, port in zip(packed, ports, strict=True)
        ]
        rest = rest[2 * size + 4 :]
    found = {}
    while rest:
        kind, size = struct.unpack_from("!BH", rest)
        found[kind], rest = rest[3 : 3 + size], rest[3 + size :]
    return family, addresses, found


@pytest.mark.parametrize(
    ("source", "peer", "family", "addresses"),
    [
        ("203.0.113.9", ("10.0.0.1", 22), 0x11, [("203.0.113.9", 0), ("10.0.0.1", 22)]),
        ("2001:db8::9", ("fd00::7", 22, 0, 0), 0x21, [("2001:db8::9", 0), ("fd00::7", 22)]),
        (
            "203.0.113.9",
            ("fd00::7", 22, 0, 0),
            0x21,
            [("::ffff:203.0.113.9", 0), ("fd00::7", 22)],
        ),
        (
            "2001:db8::9",
            ("10.0.0.1", 22),
            0x21,
            [("2001:db8::9", 0), ("::ffff:10.0.0.1", 22)],
        ),
        ("::ffff:203.0.113.9", ("10.0.0.1", 22), 0x11, [("203.0.113.9", 0), ("10.0.0.1", 22)]),
        ("203.0.113.9", "", 0x11, [("203.0.113.9", 0), ("0.0.0.0", 0)]),
        ("2001:db8::9", "", 0x21, [("2001:db8::9", 0), ("::", 0)]),
        ("", ("10.0.0.1", 22), 0x00, []),
        ("203.0.113.9:4711", ("10.0.0.1", 22), 0x00, []),
        ("203.0.113.9\r\nX", ("10.0.0.1", 22), 0x00, []),
    ],
    ids=["v4", "v6", "v4 to v6", "v6 to v4", "mapped", "v4 to a socket", "v6 to a socket",
         "not told", "with a port", "no address"],
)  # fmt: skip
def test_addresses_are_the_users_and_the_targets(
    source: str, peer: object, family: int, addresses: list[tuple[str, int]]
) -> None:
    found = read(proxy_header(source=source, user="alice", peer=peer))
    assert [(str(ipaddress.ip_address(host)), port) for host, port in addresses] == [
        (host, port) for host, port in found[1]
    ]
    assert found[0] == family
    assert found[2] == {USER_TLV: b"alice"}


@pytest.mark.parametrize(
    "user",
    ["alice@example.com", "Ünïcödé", "x" * 5000, "a\r\nb", f"{SIGNATURE.decode('latin-1')}\x21\x11",
     "\xe0\x00\x05admin"],
    ids=["a mail", "not ASCII", "long", "lines", "another header", "another TLV"],
)  # fmt: skip
def test_no_name_ends_its_field_or_begins_another(user: str) -> None:
    family, addresses, found = read(
        proxy_header(source="203.0.113.9", user=user, peer=("10.0.0.1", 22))
    )
    assert family == 0x11
    assert addresses == [("203.0.113.9", 0), ("10.0.0.1", 22)]
    assert set(found) == {USER_TLV}
    assert len(found[USER_TLV]) <= 255
    assert found[USER_TLV].decode().isprintable()


def test_nobody_has_no_name() -> None:
    assert read(proxy_header(source="", user="", peer=""))[2] == {}


def test_the_proxys_own_parser_takes_it() -> None:
    """The two ends of the repository agree on the specification."""
    from heim_proxy.edge.proxy_protocol import parse

    found = parse(proxy_header(source="203.0.113.9", user="alice", peer=("10.0.0.1", 22)))
    assert found is not None
    assert found.source == ("203.0.113.9", 0)
