from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.headers import parse_connection
from websockets.http11 import Request
from websockets.server import ServerProtocol

from heim_wire.handshake import (
    SUBPROTOCOL,
    Connect,
    Upgrade,
    accept_key,
    answer_upgrade,
    connect_request,
    valid_key,
)
from heim_wire.problem import Refused

# RFC 6455, 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
TOKEN = "eyJhbGciOiJFUzI1NiJ9.e30.signature"


def upgrade(**options: object) -> Upgrade:
    given = {"token": TOKEN, "entropy": lambda size: b"the sample nonce", **options}
    return Upgrade("web1.heim.test", **given)  # type: ignore[arg-type]


def agreed(**changes: str | None) -> bytes:
    """A 101 to `upgrade()`, with some fields changed or left out."""
    fields: dict[str, str | None] = {
        "Upgrade": "WebSocket",
        "Connection": "keep-alive, upgrade",
        "Sec-WebSocket-Accept": ACCEPT,
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


def fields_of(request: bytes) -> dict[str, str]:
    _, *lines = request.decode().split("\r\n\r\n")[0].split("\r\n")
    return dict(line.split(": ", 1) for line in lines)


# -- the client's upgrade -----------------------------------------------------------------------


def test_the_request_is_what_the_proxy_expects() -> None:
    request = upgrade(headers=[("Heim-Backend", "web1")]).request
    assert request.startswith(b"GET /.heim/tunnel/connect HTTP/1.1\r\nHost: web1.heim.test\r\n")
    assert request.endswith(b"\r\n\r\n")
    assert fields_of(request) == {
        "Host": "web1.heim.test",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
        "Authorization": f"Bearer {TOKEN}",
        "Heim-Backend": "web1",
    }


def test_every_request_has_a_key_of_its_own() -> None:
    keys = {fields_of(Upgrade("h", token="t").request)["Sec-WebSocket-Key"] for _ in range(20)}
    assert len(keys) == 20
    assert all(valid_key(key) for key in keys)


@pytest.mark.parametrize(
    "options",
    [
        {"token": "x\r\nHeim-Backend: db1"},
        {"token": "x\ny"},
        {"token": "tökén"},
        {"path": "/x HTTP/1.1\r\nA: b"},
        {"path": "no-slash"},
        {"headers": [("Heim-Backend", "a\r\nB: c")]},
        {"headers": [("Heim Backend", "a")]},
        {"headers": [("A:b", "c")]},
        {"headers": [("", "c")]},
        {"headers": [("A", "b\0c")]},
    ],
    ids=repr,
)
def test_nothing_can_be_smuggled_into_the_request(options: dict[str, object]) -> None:
    with pytest.raises(ValueError) as raised:
        upgrade(**options)
    assert "x\r\n" not in str(raised.value)


@pytest.mark.parametrize("host", ["a b", "a\r\nX: y", "", "h\u00f6st"], ids=ascii)
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        Upgrade(host, token="t")


def test_the_token_shows_nowhere() -> None:
    with pytest.raises(ValueError) as raised:
        upgrade(token=f"{TOKEN}\n")
    assert TOKEN not in str(raised.value)
    assert TOKEN not in repr(upgrade())


def test_the_right_answer_is_taken() -> None:
    assert upgrade().receive(agreed() + b"\x82\x00") == b"\x82\x00"


def test_what_is_prepared_meanwhile_changes_nothing() -> None:
    request = upgrade()
    request.prepare()
    assert request.receive(agreed()) == b""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Upgrade": "h2c"}, "another protocol"),
        ({"Upgrade": None}, "another protocol"),
        ({"Connection": "close"}, "without Connection"),
        ({"Sec_WebSocket_Accept": accept_key("another")}, "somebody else's"),
        ({"Sec_WebSocket_Accept": None}, "somebody else's"),
        ({"Sec_WebSocket_Accept": ACCEPT.lower()}, "somebody else's"),
        ({"Sec_WebSocket_Protocol": None}, "another tunnel protocol"),
        ({"Sec_WebSocket_Protocol": "heim.tunnel.v2"}, "another tunnel protocol"),
        ({"Sec_WebSocket_Extensions": "permessage-deflate"}, "extension"),
    ],
    ids=repr,
)
def test_a_101_that_does_not_fit_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(Refused, match=words):
        upgrade().receive(agreed(**changes))


def test_a_refusal_is_the_proxys_own_words() -> None:
    body = b'{"code": "no_such_target", "detail": "no such service"}'
    sent = (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    with pytest.raises(Refused, match="no such service") as raised:
        upgrade().receive(sent)
    assert raised.value.code == "no_such_target"


# -- the server's answer ------------------------------------------------------------------------


def test_the_accept_key_is_that_of_the_rfc() -> None:
    assert accept_key(KEY) == ACCEPT


def test_a_client_of_ours_takes_a_server_of_ours() -> None:
    request = upgrade()
    key = fields_of(request.request)["Sec-WebSocket-Key"]
    answer = answer_upgrade(key, [("Heim-Request-Id", "01J")])
    assert request.receive(answer) == b""
    assert b"\r\nHeim-Request-Id: 01J\r\n" in answer


def test_nothing_can_be_smuggled_into_the_answer() -> None:
    with pytest.raises(ValueError):
        answer_upgrade(KEY, [("Heim-Request-Id", "x\r\nSet-Cookie: a=b")])


def test_the_websockets_library_agrees_with_both_ends() -> None:
    request = upgrade()
    headers = Headers(fields_of(request.request))
    assert parse_connection(headers["Connection"]) == ["Upgrade"]
    server = ServerProtocol(subprotocols=[SUBPROTOCOL])  # type: ignore[list-item]
    answer = server.accept(Request("/.heim/tunnel/connect", headers))
    assert answer.status_code == 101
    assert request.receive(answer.serialize()) == b""


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        (KEY, True),
        ("", False),
        ("dGhlIHNhbXBsZSBub25jZQ", False),
        ("dGhlIHNhbXBsZSBub25jZQ===", False),
        ("AAAAAAAAAAAAAAAAAAAAAAAA", False),
        ("dGhlIHNhbXBsZSBub25jZ!==", False),
        ("dGhlIHNhbXBsZSBub25j\r\n==", False),
        ("\u00e4" * 24, False),
    ],
    ids=ascii,
)
def test_a_key_is_the_base64_of_16_bytes(key: str, valid: bool) -> None:
    assert valid_key(key) is valid


# -- HTTP proxies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "authority"),
    [("web1.test", b"web1.test:443"), ("::1", b"[::1]:443"), ("10.0.0.1", b"10.0.0.1:443")],
    ids=["name", "IPv6", "IPv4"],
)  # fmt: skip
def test_connect_names_where_to(host: str, authority: bytes) -> None:
    assert connect_request(host, 443) == (
        b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)
    )


def test_connect_tells_who_asks() -> None:
    request = connect_request("h", 443, "alice:pässword")
    assert fields_of(request)["Proxy-Authorization"] == "Basic YWxpY2U6cMOkc3N3b3Jk"


@pytest.mark.parametrize("host", ["", "a b", "a\r\nb", "u@h", "[::1]", "h/x", "hö"], ids=ascii)
def test_connect_to_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError):
        connect_request(host, 443)


def test_any_2xx_connects() -> None:
    assert Connect("p:8080").receive(b"HTTP/1.1 200 Connection established\r\n\r\n") == b""
    assert Connect("p:8080").receive(b"HTTP/1.0 204 Yes\r\nX: y\r\n\r\nearly") == b"early"


@pytest.mark.parametrize("status", [407, 403, 502, 503, 302, 101])
def test_an_http_proxy_that_will_not_is_named(status: int) -> None:
    with pytest.raises(Refused) as raised:
        Connect("p:8080").receive(b"HTTP/1.1 %d No\r\nContent-Length: 999\r\n\r\n" % status)
    assert raised.value.status == status
    assert raised.value.detail.startswith(f"the HTTP proxy p:8080 answered {status}")


def test_an_http_proxy_that_hangs_up_is_named() -> None:
    assert Connect("p:8080").eof().detail == (
        "the HTTP proxy p:8080 closed the connection without an answer"
    )
