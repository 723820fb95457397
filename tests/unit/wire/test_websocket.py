"""The codec against itself, against the `websockets` library, and against hostile bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Close as TheirClose
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from heim_wire.errors import Code, WireError
from heim_wire.websocket import Close, WebSocket

SIZES = [0, 1, 125, 126, 127, 16367, 16368, 16369, 65535, 65536, 65537]
ROLES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


def pair() -> tuple[WebSocket, WebSocket]:
    return WebSocket(client=True), WebSocket(client=False)


def ends(client: bool) -> tuple[WebSocket, WebSocket]:
    """The end in the role asked for, and the other one."""
    ours, theirs = pair()
    return (ours, theirs) if client else (theirs, ours)


def collected(websocket: WebSocket, chunks: Iterator[bytes] | list[bytes]) -> bytes:
    return b"".join(bytes(piece) for chunk in chunks for piece in websocket.receive(chunk))


def payload(size: int) -> bytes:
    return bytes(itertools.islice(itertools.cycle(range(251)), size))


def outcome(websocket: WebSocket, chunks: list[bytes]) -> int | None:
    """What `chunks` end in: None, or the code of the error."""
    try:
        for chunk in chunks:
            websocket.receive(chunk)
            websocket.replies()
            # Bounded: an incomplete header or control frame, and never any payload.
            assert len(websocket._rest) < 14 + 125
    except WireError as error:
        return error.code
    return None


def frame(first: int, content: bytes, *, mask: bytes = b"", wide: int = 0) -> bytes:
    """Any frame at all: RFC 6455, 5.2, without its rules."""
    size = len(content)
    wide = wide or (0 if size < 126 else 2 if size < 1 << 16 else 8)
    length = {0: size, 2: 126, 8: 127}[wide]
    head = bytes((first, (0x80 if mask else 0) | length))
    hidden = bytes(byte ^ mask[i % 4] for i, byte in enumerate(content)) if mask else content
    return head + (size.to_bytes(wide, "big") if wide else b"") + mask + hidden


# -- payload ------------------------------------------------------------------------------------


@ROLES
@pytest.mark.parametrize("size", SIZES)
def test_payload_arrives(client: bool, size: int) -> None:
    ours, theirs = ends(client)
    sent = theirs.frame([payload(size)], size)
    assert collected(ours, [sent]) == payload(size)


@ROLES
@pytest.mark.parametrize("size", [0, 1, 125, 126, 300, 65536])
def test_one_byte_at_a_time_is_as_good(client: bool, size: int) -> None:
    ours, theirs = ends(client)
    sent = theirs.frame([payload(size)], size) + theirs.frame([b"next"], 4)
    chunks = [sent[i : i + 1] for i in range(len(sent))]
    assert collected(ours, chunks) == payload(size) + b"next"


@ROLES
def test_partial_payload_is_passed_on_at_once(client: bool) -> None:
    ours, theirs = ends(client)
    sent = theirs.frame([payload(1000)], 1000)
    assert collected(ours, [sent[:-900]]) == payload(100)
    assert collected(ours, [sent[-900:-1]]) == payload(1000)[100:-1]


def test_several_parts_leave_as_one_frame() -> None:
    client, server = pair()
    parts: list[bytes | memoryview] = [b"head", memoryview(b"xxpayloadxx")[2:-2], b""]
    for ours, theirs in ((client, server), (server, client)):
        sent = ours.frame(parts, 11)
        assert sent[:2] == bytes((0x82, (0x80 if ours is client else 0) | 11))
        assert collected(theirs, [sent]) == b"headpayload"


@pytest.mark.parametrize("size", [16_383, 16_384, 65_520])
@pytest.mark.parametrize("pieces", [1, 2, 8, 9])
def test_large_frames_of_a_client_are_masked_as_a_whole(size: int, pieces: int) -> None:
    """By pieces of any length, in one write."""
    ours, theirs = pair()
    sent = payload(size)
    cuts = sorted(Random(pieces).sample(range(1, size), pieces - 1))
    parts = [sent[begin:end] for begin, end in itertools.pairwise([0, *cuts, size])]
    assert collected(theirs, [ours.frame([memoryview(part) for part in parts], size)]) == sent


def test_every_frame_of_a_client_has_a_key_of_its_own() -> None:
    keys = iter((b"aaaa", b"bbbb", b"cccc"))
    client = WebSocket(client=True, entropy=lambda size: next(keys))
    sent = [client.frame([b"same"], 4), client.ping(b"same"), client.close()]
    assert [data[2:6] for data in sent] == [b"aaaa", b"bbbb", b"cccc"]


def test_a_server_asks_for_no_keys() -> None:
    def none(size: int) -> bytes:
        raise AssertionError("a server does not mask")

    server = WebSocket(client=False, entropy=none)
    assert server.frame([b"x"], 1) + server.ping() + server.close()


@ROLES
def test_lengths_need_not_be_minimal(client: bool) -> None:
    ours, _ = ends(client)
    mask = b"" if client else b"abcd"
    for wide in (2, 8):
        assert collected(ours, [frame(0x82, b"hi", mask=mask, wide=wide)]) == b"hi"


@given(
    st.lists(st.binary(max_size=400), max_size=6),
    st.lists(st.integers(0, 500), max_size=12),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_hostile_middlebox_changes_nothing(
    messages: list[bytes], cuts: list[int], client: bool, random: Random
) -> None:
    """It fragments messages anew, puts pings between fragments, and cuts the stream anywhere."""
    ours, _ = ends(client)
    sent = b""
    for message in messages:
        borders = sorted(random.randrange(len(message) + 1) for _ in range(random.randrange(4)))
        steps = [0, *borders, len(message)]
        for index, (start, end) in enumerate(itertools.pairwise(steps)):
            mask = b"" if client else random.randbytes(4)
            first = (0x80 if end == steps[-1] and index == len(steps) - 2 else 0) | (
                2 * (not index)
            )
            sent += frame(first, message[start:end], mask=mask, wide=random.choice((0, 8)))
            if random.random() < 0.3:
                sent += frame(0x89, b"?", mask=mask)
    places = sorted({0, *(cut % (len(sent) + 1) for cut in cuts), len(sent)})
    chunks = [sent[a:b] for a, b in itertools.pairwise(places)]
    assert collected(ours, chunks) == b"".join(messages)
    assert ours.closed is None


# -- hostile bytes ------------------------------------------------------------------------------

MASK = b"\x11\x22\x33\x44"
HOSTILE = {
    "text": frame(0x81, b"hi", mask=MASK),
    "rsv1, as with compression": frame(0xC2, b"hi", mask=MASK),
    "rsv2": frame(0xA2, b"hi", mask=MASK),
    "rsv3": frame(0x92, b"hi", mask=MASK),
    "unmasked from a client": frame(0x82, b"hi"),
    "opcode 3": frame(0x83, b"hi", mask=MASK),
    "opcode 7": frame(0x87, b"hi", mask=MASK),
    "opcode 11": frame(0x8B, b"hi", mask=MASK),
    "opcode 15": frame(0x8F, b"hi", mask=MASK),
    "fragmented ping": frame(0x09, b"", mask=MASK),
    "fragmented close": frame(0x08, b"", mask=MASK),
    "long ping": frame(0x89, bytes(126), mask=MASK),
    "long ping in 64 bits": frame(0x89, b"", mask=MASK, wide=8),
    "continuation of nothing": frame(0x80, b"hi", mask=MASK),
    "continuation after the last": frame(0x82, b"hi", mask=MASK) + frame(0x80, b"", mask=MASK),
    "message inside a message": frame(0x02, b"a", mask=MASK) + frame(0x82, b"b", mask=MASK),
    "length with its highest bit": bytes((0x82, 0xFF)) + b"\x80" + bytes(7) + MASK,
    "close with one byte": frame(0x88, b"\x03", mask=MASK),
    "close 999": frame(0x88, b"\x03\xe7", mask=MASK),
    "close 1004": frame(0x88, b"\x03\xec", mask=MASK),
    "close 1005": frame(0x88, b"\x03\xed", mask=MASK),
    "close 1006": frame(0x88, b"\x03\xee", mask=MASK),
    "close 1015": frame(0x88, b"\x03\xf7", mask=MASK),
    "close 2999": frame(0x88, b"\x0b\xb7", mask=MASK),
    "close 5000": frame(0x88, b"\x13\x88", mask=MASK),
    "close with a reason that is not UTF-8": frame(0x88, b"\x03\xe8\xff", mask=MASK),
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("step", [1, 1000], ids=["byte by byte", "at once"])
def test_a_broken_frame_ends_the_connection(sent: bytes, step: int) -> None:
    server = WebSocket(client=False)
    with pytest.raises(WireError) as raised:
        collected(server, [sent[i : i + step] for i in range(0, len(sent), step)])
    assert raised.value.code == Code.PROTOCOL
    assert raised.value.reason.startswith("WebSocket: ")


def test_a_masked_frame_from_a_server_is_refused() -> None:
    with pytest.raises(WireError, match="masked"):
        WebSocket(client=True).receive(frame(0x82, b"hi", mask=MASK))


def test_the_largest_length_is_a_length() -> None:
    server = WebSocket(client=False)
    head = bytes((0x82, 0xFF)) + ((1 << 63) - 1).to_bytes(8, "big") + bytes(4)
    assert collected(server, [head, b"hi"]) == b"hi"


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
@example([b"\x82", b"\x7f"], True)
def test_any_bytes_are_payload_or_an_error(chunks: list[bytes], client: bool) -> None:
    assert outcome(ends(client)[0], chunks) in (None, Code.PROTOCOL)


FRAMES = st.builds(
    frame,
    st.sampled_from([0x82, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, 0x81, 0xC2, 0x8B]),
    st.binary(max_size=130),
    mask=st.sampled_from([MASK, MASK, MASK, b"\0\0\0\0", b""]),
    wide=st.sampled_from([0, 0, 8]),
)


@given(st.lists(FRAMES, max_size=8), st.integers(1, 50))
def test_nearly_right_frames_are_payload_or_an_error(frames: list[bytes], step: int) -> None:
    sent = b"".join(frames)
    chunks = [sent[i : i + step] for i in range(0, len(sent), step)]
    assert outcome(WebSocket(client=False), chunks) in (None, Code.PROTOCOL)


# -- control frames -----------------------------------------------------------------------------


@ROLES
def test_a_ping_is_answered_with_its_payload(client: bool) -> None:
    ours, theirs = ends(client)
    assert not ours.owes
    ours.receive(theirs.ping(b"are you there?"))
    assert ours.owes
    pong = ours.replies()
    assert not ours.owes
    assert pong[0] == 0x8A
    assert theirs.receive(pong) == []
    assert pong.endswith(b"are you there?") is not client
    assert ours.replies() == b""


@ROLES
def test_of_many_pings_the_newest_is_answered(client: bool) -> None:
    """A flood of pings while we cannot write must not fill our memory."""
    ours, theirs = ends(client)
    for number in range(1000):
        ours.receive(theirs.ping(str(number).encode()))
    theirs.receive(ours.replies())
    assert ours.replies() == b""


@ROLES
def test_a_ping_between_fragments_is_answered_at_once(client: bool) -> None:
    ours, _ = ends(client)
    mask = b"" if client else MASK
    assert collected(ours, [frame(0x02, b"a", mask=mask) + frame(0x89, b"!", mask=mask)]) == b"a"
    assert ours.replies()
    assert collected(ours, [frame(0x80, b"b", mask=mask)]) == b"b"


def test_an_unasked_pong_is_ignored() -> None:
    client, server = pair()
    server.receive(client._control(0xA, b"hello"))
    assert server.replies() == b""


def test_a_long_ping_is_not_sent() -> None:
    with pytest.raises(ValueError, match="125"):
        WebSocket(client=True).ping(bytes(126))


@ROLES
def test_a_close_is_told_and_answered_with_its_code(client: bool) -> None:
    ours, theirs = ends(client)
    ours.receive(theirs.frame([b"last"], 4) + theirs.close(1001, "going away"))
    assert isinstance(ours.closed, Close)
    assert (ours.closed.code, ours.closed.reason) == (1001, "going away")
    theirs.receive(ours.replies())
    assert theirs.closed is not None
    assert theirs.closed.code == 1001
    assert theirs.replies() == b""
    assert ours.close() == b""


def test_a_close_without_a_code_is_answered_without_one() -> None:
    server = WebSocket(client=False)
    server.receive(frame(0x88, b"", mask=MASK))
    assert server.closed is not None
    assert server.closed.code == 1005
    assert server.replies() == b"\x88\x00"


@ROLES
def test_what_follows_a_close_is_ignored(client: bool) -> None:
    ours, theirs = ends(client)
    last = theirs.close() + b"\xff" * 1000
    assert collected(ours, [last, b"more" * 1000]) == b""
    assert ours.closed is not None
    assert not ours._rest


def test_both_may_close_at_once() -> None:
    client, server = pair()
    first, second = client.close(1000), server.close(1001)
    client.receive(second)
    server.receive(first)
    assert client.closed is not None
    assert server.closed is not None
    assert client.replies() == server.replies() == b""


def test_no_ping_is_answered_after_our_close() -> None:
    """RFC 6455, 5.5.1: nothing is sent after a close frame."""
    client, server = pair()
    server.receive(client.ping())
    server.close()
    assert server.replies() == b""


@pytest.mark.parametrize("reason", ["ж" * 100, "x" * 300, "half \ud800"], ids=ascii)
def test_a_long_reason_is_cut_between_characters(reason: str) -> None:
    client, server = pair()
    client.receive(server.close(1008, reason))
    assert client.closed is not None
    assert len(client.closed.reason.encode()) <= 123


# -- against the websockets library -------------------------------------------------------------


def their_end(client: bool) -> Protocol:
    """A `websockets` connection in its data phase."""
    theirs: Protocol = (
        ClientProtocol(parse_uri("wss://heim.test/"), max_size=None)
        if client
        else ServerProtocol(max_size=None)
    )
    theirs.state = State.OPEN
    assert theirs.side is (Side.CLIENT if client else Side.SERVER)
    # Past its HTTP: for a client that is where its own parser would begin.
    theirs.parser = Protocol.parse(theirs)
    next(theirs.parser)
    return theirs


@ROLES
@pytest.mark.parametrize("size", SIZES)
def test_the_websockets_library_understands_us(client: bool, size: int) -> None:
    ours = WebSocket(client=client)
    theirs = their_end(not client)
    theirs.receive_data(ours.frame([payload(size)], size))
    [event] = theirs.events_received()
    assert isinstance(event, Frame)
    assert event.opcode is Opcode.BINARY
    assert bytes(event.data) == payload(size)
    theirs.receive_data(ours.ping(b"hello"))
    ours.receive(b"".join(theirs.data_to_send()))
    theirs.receive_data(ours.close(1001, "bye"))
    assert theirs.close_rcvd == TheirClose(1001, "bye")
    ours.receive(b"".join(theirs.data_to_send()))
    assert ours.closed is not None
    assert ours.closed.code == 1001


@ROLES
@pytest.mark.parametrize("size", SIZES)
def test_we_understand_the_websockets_library(client: bool, size: int) -> None:
    ours = WebSocket(client=client)
    theirs = their_end(not client)
    theirs.send_binary(payload(size), fin=False)
    theirs.send_ping(b"hello")
    theirs.send_continuation(payload(size), fin=True)
    sent = b"".join(theirs.data_to_send())
    assert collected(ours, [sent[:-1], sent[-1:]]) == payload(size) * 2
    theirs.receive_data(ours.replies())
    assert [event.opcode for event in theirs.events_received() if isinstance(event, Frame)] == [
        Opcode.PONG
    ]
    theirs.send_close(1000, "done")
    ours.receive(b"".join(theirs.data_to_send()))
    assert ours.closed is not None
    assert ours.closed.reason == "done"
    theirs.receive_data(ours.replies())
    assert theirs.close_rcvd == TheirClose(1000, "")
