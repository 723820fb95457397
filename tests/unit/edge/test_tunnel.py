from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from heim_proxy.edge.tunnel import Tunnel


@dataclass
class End:
    """Either end of a tunnel, as the tunnel uses it."""

    sent: bytes = b""
    closed: bool = False
    keep_alive: bool = True
    calls: list[str] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.sent += data

    send = write

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def front() -> End:
    return End()


@pytest.fixture
def upstream() -> End:
    return End()


def made(front: End, upstream: End, *, websocket: bool = True) -> Tunnel:
    return Tunnel(front, upstream, websocket=websocket)  # type: ignore[arg-type]


TEXT = b"\x81\x02hi"
MASKED = b"\x81\x82\x01\x02\x03\x04hi"


def test_bytes_pass_both_ways_untouched(front: End, upstream: End) -> None:
    tunnel = made(front, upstream)
    tunnel.up(MASKED[:3])
    tunnel.up(MASKED[3:])
    assert not tunnel.down(TEXT + TEXT[:1])
    assert not tunnel.down(TEXT[1:])
    assert (upstream.sent, front.sent) == (MASKED, TEXT + TEXT)


def test_a_goodbye_between_frames_goes_out_at_once_on_both_sides(front: End, upstream: End) -> None:
    tunnel = made(front, upstream)
    assert tunnel.goodbye(4401, "bye")
    assert front.sent == b"\x88\x05\x11\x31bye"
    assert upstream.sent[0] == 0x88
    assert upstream.sent[1] == 0x80 | 5
    assert upstream.closed
    assert not front.keep_alive


def test_a_goodbye_waits_for_the_frame_that_is_on_its_way_down(front: End, upstream: End) -> None:
    tunnel = made(front, upstream)
    tunnel.down(TEXT[:3])
    assert not tunnel.goodbye(4401, "bye")
    assert not upstream.closed
    # Nothing more goes up meanwhile.
    up = upstream.sent
    tunnel.up(MASKED)
    assert upstream.sent == up
    assert tunnel.down(TEXT[3:] + TEXT[:2])
    # Another frame has begun: the goodbye stands before it, and it is not sent.
    assert front.sent == TEXT + b"\x88\x05\x11\x31bye"
    assert upstream.closed


def test_a_goodbye_waits_through_a_long_frame(front: End, upstream: End) -> None:
    tunnel = made(front, upstream)
    tunnel.down(b"\x82\x7e\x01\x00" + bytes(100))
    assert not tunnel.goodbye(1001, "x")
    assert not tunnel.down(bytes(100))
    assert tunnel.down(bytes(56))
    assert front.sent.endswith(bytes(56) + b"\x88\x03\x03\xe9x")


def test_an_upstream_in_the_middle_of_a_frame_of_the_clients_is_told_nothing(
    front: End, upstream: End
) -> None:
    tunnel = made(front, upstream)
    tunnel.up(MASKED[:-1])
    assert tunnel.goodbye(4401, "bye")
    assert upstream.sent == MASKED[:-1]
    assert upstream.closed


def test_other_protocols_are_closed_without_a_word(front: End, upstream: End) -> None:
    tunnel = made(front, upstream, websocket=False)
    tunnel.up(b"anything")
    tunnel.down(b"at all")
    assert tunnel.goodbye(4401, "bye")
    assert (upstream.sent, front.sent) == (b"anything", b"at all")
    assert upstream.closed
