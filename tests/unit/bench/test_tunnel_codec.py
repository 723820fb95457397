"""The load's own reading of the protocol, held to the product's: they were written apart."""

from __future__ import annotations

import os

import pytest
from bench.tunnel.codec import CodecError, Heim, Raw, WebSocket, websocket_frame

from heim_wire.events import Data
from heim_wire.session import Session
from heim_wire.websocket import WebSocket as OurWebSocket

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def test_a_raw_stream_is_passed_on_as_it_is() -> None:
    raw = Raw()
    raw.kept = bytearray()
    raw.receive(b"abc")
    assert (raw.frame(b"x"), raw.got, raw.kept) == (b"x", 3, b"abc")


@pytest.mark.parametrize(
    "size", [0, 1, 125, 126, 65_535, 65_536, 70_001], ids=lambda size: f"{size} bytes"
)
def test_frames_are_what_a_server_of_ours_reads(size: int) -> None:
    payload = os.urandom(size)
    pieces = OurWebSocket(client=False).receive(websocket_frame(payload))
    assert b"".join(pieces) == payload


@pytest.mark.parametrize("step", [1, 2, 7, 1000, 100_000], ids=lambda step: f"{step} at a time")
def test_a_servers_frames_are_read_in_any_pieces(step: int) -> None:
    server, client = OurWebSocket(client=False), WebSocket(b"GET /")
    client.kept = bytearray()
    sent = [os.urandom(size) for size in (1, 125, 126, 4000, 66_000)]
    wire = b"".join(server.frame([part], len(part)) for part in sent)
    for at in range(0, len(wire), step):
        client.receive(wire[at : at + step])
    assert client.kept == b"".join(sent)


def test_a_refusal_is_told_in_the_servers_words() -> None:
    client = WebSocket(b"GET /")
    assert not client.answered(b"HTTP/1.1 403 Forbidden\r\n")
    with pytest.raises(CodecError, match="403"):
        client.answered(b"\r\nno")


def test_what_comes_behind_the_answer_is_not_lost() -> None:
    client = WebSocket(b"GET /")
    assert client.answered(ANSWER + b"\x82\x02ab")
    assert client.got == 2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"\x82\x81\0\0\0\0a", "mask", id="masked by a server"),
        pytest.param(b"\x88\x02\x03\xe8", "close", id="close"),
    ],
)
def test_what_no_server_may_send_ends_the_load(data: bytes, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        WebSocket(b"").receive(data)


def test_a_heim_stream_speaks_with_a_session_of_ours() -> None:
    """Uploads within the credit, downloads beyond the first window, and a PING that is answered."""
    load, websocket = Heim(b"GET /"), OurWebSocket(client=False)
    session = Session(initiator=False, now=0.0)
    stream = session.adopt()

    def to_session(frame: bytes) -> bytes:
        events = [
            event for piece in websocket.receive(frame) for event in session.receive(piece, 0.1)
        ]
        got = b"".join(bytes(event.payload) for event in events if isinstance(event, Data))
        stream.consumed(len(got))
        return got

    def to_load() -> None:
        while session.wants_write:
            parts, total = session.take(16_384)
            load.receive(websocket.frame(parts, total))

    to_session(load.greeting)
    assert session.peer is not None
    to_load()
    assert load.room == 256 * 1024, "the first window and what the session added to it"
    uploaded = b""
    for _ in range(20):
        payload = os.urandom(50_000)
        assert load.room >= len(payload)
        load.sent(len(payload))
        uploaded += to_session(load.frame(payload))
        to_load()
        to_session(load.reply())
    assert len(uploaded) == 1_000_000
    assert load.most >= 256 * 1024

    load.kept = bytearray()
    sent = os.urandom(3_000_000)
    for at in range(0, len(sent), 100_000):
        stream.send(sent[at : at + 100_000])
        to_load()
        reply = load.reply()
        if reply:
            to_session(reply)
    to_load()
    assert bytes(load.kept) == sent, "its grants let everything through"
    assert session.rtt is not None, "it answers PINGs"


def test_a_reset_ends_the_load() -> None:
    load, websocket = Heim(b""), OurWebSocket(client=False)
    session = Session(initiator=False, now=0.0)
    session.adopt().reset(6, "nobody there")
    parts, total = session.take(65_536)
    with pytest.raises(CodecError, match="nobody there"):
        load.receive(websocket.frame(parts, total))
