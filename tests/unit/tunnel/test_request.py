from __future__ import annotations

from collections.abc import Callable

import pytest

from heim_runtime.complaints import Complaint
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.request import Reply, form_of, get, post
from tests.fakes.tunnel_server import LOGIN_HOST, Peer, TunnelServer

URL = f"https://{LOGIN_HOST}/.heim/cli/token"


def asked(script: Callable[[Peer], None]) -> tuple[Reply, Peer]:
    """Post to a server that answers so."""
    with TunnelServer(script) as server:
        reply = post(URL, {"a": "b c", "d": "ü&="}, way(server))
        return reply, server.peers[0]


def way(server: TunnelServer) -> Way:
    return Way(ca_file=str(server.ca_file), connect_to=Endpoint("127.0.0.1", server.port))


def raw(text: str) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.request()
        for begin in range(0, len(text), 7):
            peer.sock.sendall(text[begin : begin + 7].encode())

    return script


def test_a_form_is_posted_and_the_answer_read() -> None:
    reply, peer = asked(lambda peer: (peer.request(), peer.json({"x": 1}))[1])
    assert (reply.status, reply.json()) == (200, {"x": 1})
    assert peer.head.startswith("POST /.heim/cli/token HTTP/1.1\r\n")
    assert peer.body == b"a=b%20c&d=%C3%BC%26%3D"
    assert peer.fields["host"] == LOGIN_HOST
    assert peer.fields["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in peer.fields


def test_a_get_carries_its_bearer() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.json({})

    with TunnelServer(script) as server:
        get(URL, way(server), bearer="tok")
        assert server.peers[0].head.startswith("GET ")
        assert server.peers[0].fields["authorization"] == "Bearer tok"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}more", b"{}"),
        ("HTTP/1.1 200 OK\r\n\r\n{}", b"{}"),
        ("HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{}", b"{}"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
            b"{}",
        ),
        ("HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n", b""),
    ],
    ids=["length", "close", "1.0", "chunked", "empty"],
)
def test_an_answer_is_read_however_it_is_framed(answer: str, body: bytes) -> None:
    assert asked(raw(answer))[0].body == body


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("", "does not speak HTTP"),
        ("SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "does not speak HTTP"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}", "does not speak HTTP"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", "does not speak HTTP"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + "-2\r\n" * 300,
            "does not speak HTTP",
        ),
    ],
    ids=["nothing", "ssh", "short", "short chunk", "bad chunk", "negative chunk"],
)
def test_an_answer_that_is_none_is_told(answer: str, text: str) -> None:
    with pytest.raises(Complaint, match=text):
        asked(raw(answer))


def test_an_answer_without_end_is_given_up() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                peer.sock.sendall(bytes(65536))
        except OSError:
            return

    with pytest.raises(Complaint, match="does not speak HTTP"):
        asked(script)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"[" * 100_000])
def test_a_page_instead_of_json_is_told(body: bytes) -> None:
    reply = Reply("auth.example.test", 200, {"content-type": "text/html"}, body)
    with pytest.raises(Complaint, match=r"not a Heim login host.*status 200, text/html") as caught:
        reply.json()
    assert caught.value.status == 76


def test_no_repr_shows_a_body() -> None:
    assert repr(Reply("h", 200, {}, b"secret")) == "<Reply 200 from h>"
    assert form_of({}) == b""
