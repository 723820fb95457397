from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from heim_runtime import trust
from heim_runtime.link import Link, ready
from heim_tunnel.carriage import Carriage
from heim_wire import events
from heim_wire.errors import Code
from tests.fakes.tunnel_server import TARGET, Peer, Script, TunnelServer


class Client:
    """A carriage that is driven by hand; notes what happened."""

    def __init__(self, carriage: Carriage) -> None:
        self.carriage = carriage
        self.happened: list[events.Event] = []

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, self.happened
            self.happened += self.carriage.send()
            if ready(self.carriage.fileno(), select.POLLIN, time.monotonic() + 0.05):
                self.happened += self.carriage.receive()

    def saw(self, kind: type[events.Event]) -> bool:
        return any(isinstance(event, kind) for event in self.happened)


@contextmanager
def carried(script: Script) -> Iterator[Client]:
    with TunnelServer(script) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        link = Link(sock, trust.context(str(server.ca_file)), TARGET)
        deadline = time.monotonic() + 5
        link.handshake(deadline)
        link.send(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: AAAA\r\n\r\n", deadline)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += link.receive(deadline)
        client = Client(Carriage(link))
        client.happened += client.carriage.unpack([answer.partition(b"\r\n\r\n")[2]])
        try:
            yield client
        finally:
            client.carriage.close()


def test_a_stream_begins_goes_on_and_ends() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade(coalesced=b"early ")
        peer.until(lambda: peer.saw(events.Ended))
        peer.stream.send(bytes(peer.received))
        peer.goodbye()

    with carried(script) as client:
        carriage = client.carriage
        carriage.stream.send(b"and late")
        carriage.stream.end()
        client.until(lambda: client.saw(events.Closed))
        got = b"".join(e.payload for e in client.happened if isinstance(e, events.Data))
        assert got == b"early and late"
        client.until(lambda: carriage.all_sent)
        assert not carriage.closing
        carriage.say_close()
        carriage.say_close()
        client.until(lambda: carriage.ended)
    assert carriage.closing
    assert carriage.broken is None


def test_not_all_is_sent_before_the_end_is() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.wait_closed()

    with carried(script) as client:
        client.carriage.stream.send(bytes(1024 * 1024))
        client.carriage.stream.end()
        client.carriage.send()
        # The first credit is used up, and no more comes.
        assert not client.carriage.all_sent


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (Peer.hang_up, ""),
        (
            lambda peer: peer.sock.sendall(peer.websocket.close(1011, "oops\x07")),
            "it was closed with status 1011 (oops)",
        ),
        (
            lambda peer: peer.sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            ),
            "connection reset by peer",
        ),
    ],
    ids=["fin", "close", "rst"],
)
def test_how_a_connection_ended_is_known(how: Callable[[Peer], None], why: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        how(peer)

    with carried(script) as client:
        client.until(lambda: client.carriage.ended)
        assert client.carriage.why == why
        assert client.carriage.broken is None
        client.carriage.stream.send(b"x")
        assert client.carriage.send() == []


def test_a_peer_that_breaks_the_protocol_is_told_and_what_came_before_is_good() -> None:
    told: list[events.Event] = []
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"good")
        peer.flush()
        peer.sock.sendall(peer.websocket.frame([b"\x3f\1\0\0\0\0\0\0"], 8))
        peer.until(lambda: peer.saw(events.GoAway))
        told.extend(peer.events)
        done.set()

    with carried(script) as client:
        client.until(lambda: client.carriage.ended)
        assert client.carriage.broken is not None
        assert client.carriage.broken.code == Code.PROTOCOL
        assert client.saw(events.Data)
        assert done.wait(5)
    assert any(isinstance(e, events.GoAway) and e.code == Code.PROTOCOL for e in told)
