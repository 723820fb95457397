from __future__ import annotations

import ipaddress

import pytest

from heim_proxy.edge.headers import client_address, trusted_request_id, upstream_head
from heim_proxy.edge.judge import Client
from tests.unit.edge.heads import HOST, parsed

TRUSTED = [ipaddress.ip_network(one) for one in ("10.0.0.0/8", "fd00::/8")]
PROXY = "10.0.0.1"


def trusted(address: str) -> bool:
    return any(ipaddress.ip_address(address) in network for network in TRUSTED)


def forwarded(*values: str, name: str = "x-forwarded-for") -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for value in values]


@pytest.mark.parametrize(
    ("values", "address"),
    [
        pytest.param(("203.0.113.9",), "203.0.113.9", id="one hop"),
        pytest.param(("198.51.100.1, 203.0.113.9",), "203.0.113.9", id="E6 right-most untrusted"),
        pytest.param(("203.0.113.9, 10.0.0.2",), "203.0.113.9", id="two trusted proxies"),
        pytest.param(("203.0.113.9", "10.0.0.2"), "203.0.113.9", id="two lines are one list"),
        pytest.param(("10.0.0.3, 10.0.0.2",), "10.0.0.3", id="only trusted hops"),
        pytest.param(("203.0.113.9:51234",), "203.0.113.9", id="E6 port"),
        pytest.param(("[2001:db8::1]:51234",), "2001:db8::1", id="E6 bracketed with a port"),
        pytest.param(("[2001:db8::1]",), "2001:db8::1", id="bracketed"),
        pytest.param(("2001:DB8:0::1",), "2001:db8::1", id="E6 one form of IPv6"),
        pytest.param(("fe80::1%eth0",), "fe80::1", id="E6 zone"),
        pytest.param(("::ffff:203.0.113.9",), "203.0.113.9", id="E6 mapped is the IPv4 address"),
        pytest.param(("198.51.100.1, ::ffff:10.0.0.2",), "198.51.100.1", id="mapped and trusted"),
        pytest.param(("a",), PROXY, id="E2 no address"),
        pytest.param(("203.0.113.9, a",), PROXY, id="E2 nothing left of nonsense counts"),
        pytest.param(("a, 203.0.113.9",), "203.0.113.9", id="nonsense further left"),
        pytest.param(("203.0.113.9, , 10.0.0.2",), "10.0.0.2", id="empty entry ends the search"),
        pytest.param(("",), PROXY, id="empty"),
        pytest.param((",,,",), PROXY, id="only commas"),
        pytest.param(("unknown",), PROXY, id="unknown"),
        pytest.param(("_hidden",), PROXY, id="obfuscated"),
        pytest.param(("0x7f.1",), PROXY, id="address in hexadecimal"),
        pytest.param(("2130706433",), PROXY, id="address as a number"),
        pytest.param(("203.0.113.09",), PROXY, id="leading zero"),
        pytest.param(("\xe4",), PROXY, id="other bytes"),
    ],
)
def test_the_client_is_the_right_most_hop_that_no_trusted_proxy_is(
    values: tuple[str, ...], address: str
) -> None:
    assert client_address(PROXY, forwarded(*values), trusted) == address


def test_a_client_that_is_no_trusted_proxy_is_not_believed() -> None:
    assert client_address("203.0.113.9", forwarded("10.0.0.9"), trusted) == "203.0.113.9"


def test_without_the_header_the_peer_is_the_client() -> None:
    assert client_address(PROXY, None, trusted) == PROXY
    assert client_address(PROXY, forwarded("abcdefgh", name="x-request-id"), trusted) == PROXY


def test_a_list_of_a_thousand_is_read_from_the_right_within_a_bound() -> None:
    asked: list[str] = []

    def counting(address: str) -> bool:
        asked.append(address)
        return trusted(address)

    values = ", ".join(["203.0.113.9", *(["10.0.0.2"] * 1_000)])
    assert client_address(PROXY, forwarded(values), counting) == "10.0.0.2"
    assert len(asked) <= 22


@pytest.mark.parametrize(
    ("value", "believed"),
    [
        ("0af76519-16cd.43dd_8448", True),
        ("abcdefgh", True),
        ("short", False),
        ("a" * 65, False),
        ("with space", False),
        ('quote"quote', False),
        ("\xe4\xe4\xe4\xe4\xe4\xe4\xe4\xe4", False),
        ("", False),
    ],
)
def test_a_request_id_is_believed_when_it_can_be_logged(value: str, believed: bool) -> None:
    found = trusted_request_id(forwarded(value, name="x-request-id"))
    assert found == (value.encode() if believed else None)


def test_without_a_request_id_there_is_none() -> None:
    assert trusted_request_id(None) is None
    assert trusted_request_id(forwarded("203.0.113.9")) is None


def sent(
    *headers: str,
    method: str = "GET",
    host: str = HOST,
    client: Client | None = None,
    path: bytes = b"/x?y",
    identity: bytes = b"",
    cookies: bytes | None = None,
) -> list[str]:
    head = parsed(method=method, host=host, headers=headers)
    data = upstream_head(
        head,
        client or Client("203.0.113.9", secure=True),
        path=path,
        identity=identity,
        request_id=b"0123456789abcdef",
        cookies=cookies,
    )
    assert data.endswith(b"\r\n\r\n")
    assert data.count(b"\r\n\r\n") == 1
    return data[:-4].decode("latin-1").split("\r\n")


FORWARDED = [
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    f"X-Forwarded-Host: {HOST}",
    "X-Request-Id: 0123456789abcdef",
]


def test_a_head_is_built_from_what_was_judged() -> None:
    assert sent("Accept: a", "X-B: b") == [
        "GET /x?y HTTP/1.1",
        f"Host: {HOST}",
        "Accept: a",
        "X-B: b",
        *FORWARDED,
    ]


def test_identity_comes_after_everything_a_client_can_say() -> None:
    lines = sent("Connection: close, X-Auth-Id", "X-B: b", identity=b"X-Auth-Id: alice\r\n")
    assert lines[-1] == "X-Auth-Id: alice"
    assert [line for line in lines if "auth" in line.lower()] == ["X-Auth-Id: alice"]


def test_what_a_client_says_about_itself_is_replaced() -> None:
    lines = sent(
        "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: http", "X-Request-Id: abcdefgh",
        "Forwarded: for=10.0.0.1", "X-Real-IP: 10.0.0.1", "X-Forwarded-Host: evil.test",
    )  # fmt: skip
    assert lines[2:] == FORWARDED


def test_plain_http_is_told_as_it_is() -> None:
    lines = sent(client=Client("2001:db8::1", secure=False))
    assert "X-Forwarded-Proto: http" in lines
    assert "X-Forwarded-For: 2001:db8::1" in lines


def test_only_foreign_cookies_are_sent() -> None:
    lines = sent("Cookie: a=1; __Host-heim=s", cookies=b"a=1")
    assert [line for line in lines if "ookie" in line] == ["Cookie: a=1"]
    assert not any("ookie" in line for line in sent("Cookie: __Host-heim=s"))


@pytest.mark.parametrize(
    ("method", "header", "framing"),
    [
        ("GET", None, []),
        ("DELETE", None, []),
        ("POST", None, ["Content-Length: 0"]),
        ("PUT", "Content-Length: 0", ["Content-Length: 0"]),
        ("PATCH", None, ["Content-Length: 0"]),
        ("POST", "Content-Length: 5", ["Content-Length: 5"]),
        ("GET", "content-length: 005", ["Content-Length: 5"]),
        ("POST", "transfer-encoding: CHUNKED", ["Transfer-Encoding: chunked"]),
    ],
)
def test_framing_is_written_anew(method: str, header: str | None, framing: list[str]) -> None:
    lines = sent(*([header] if header else []), method=method)
    assert [line for line in lines if line.lower().startswith(("content-l", "transfer"))] == framing


def test_an_upgrade_is_asked_for_in_our_words() -> None:
    lines = sent("Connection: keep-alive, upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: k")
    at = lines.index("Connection: Upgrade")
    assert lines[at + 1] == "Upgrade: websocket"
    assert "Sec-WebSocket-Key: k" in lines
    assert sum(line.lower().startswith(("connection", "upgrade")) for line in lines) == 2


def test_no_connection_header_is_sent_otherwise() -> None:
    assert not any("onnection" in line for line in sent("Connection: keep-alive"))
