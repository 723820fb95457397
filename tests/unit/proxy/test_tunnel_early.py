from __future__ import annotations

from heim_proxy.edge.limits import DIAL_BUFFER_BYTES
from heim_proxy.edge.readgate import Hold
from heim_proxy.tunnel.early import Early


class Gate:
    """Notes why its connection is not read."""

    def __init__(self) -> None:
        self.holds = 0

    def hold(self, reason: int) -> None:
        self.holds |= reason

    def release(self, reason: int) -> None:
        self.holds &= ~reason


def early(gate: Gate) -> Early:
    return Early(gate)  # type: ignore[arg-type]


def test_bytes_wait_in_order_and_are_taken_once() -> None:
    waiting = early(Gate())
    assert not waiting
    waiting.add(b"he")
    waiting.add(b"llo")
    assert waiting
    assert waiting.take() == b"hello"
    assert not waiting
    assert waiting.take() == b""


def test_above_the_bound_the_client_is_not_read() -> None:
    gate = Gate()
    waiting = early(gate)
    waiting.add(bytes(DIAL_BUFFER_BYTES))
    assert gate.holds == 0
    waiting.add(b"x")
    assert gate.holds == Hold.DECIDING
    assert len(waiting.take()) == DIAL_BUFFER_BYTES + 1
    assert gate.holds == 0
