"""The gate's own part; how the edge uses it is in tests/unit/edge/test_readgate.py."""

from __future__ import annotations

import asyncio
import socket

import pytest

from heim_wire.aio.gate import TURN_BYTES, ReadGate, turn_bytes
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until
from tests.unit.wire.passages import tcp_pair


class Reader(asyncio.Protocol):
    """Held from the moment it is connected."""

    def __init__(self) -> None:
        self.got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        loop = asyncio.get_running_loop()
        self.gate = ReadGate(transport, loop, turn_bytes(loop))  # type: ignore[arg-type]
        self.gate.hold(1)
        loop.call_soon(self.gate.insist)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        self.gate.insist()


def test_asyncio_needs_no_stops_between_its_reads() -> None:
    """It reads 256 KiB once per turn by itself; a budget below would cost and not help."""
    for name, make in LOOPS.items():
        loop = make()
        assert turn_bytes(loop) == (TURN_BYTES if name == "uvloop" else 256 * 1024)
        loop.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hold_made_while_connecting_holds(loop: str) -> None:
    """uvloop forgets a pause made in connection_made: 240 MB were read before a dial was over."""

    async def scenario() -> None:
        near, far = tcp_pair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        running = asyncio.get_running_loop()
        _, reader = await running.connect_accepted_socket(Reader, far)
        flood = asyncio.ensure_future(running.sock_sendall(near, bytes(32 << 20)))
        await asyncio.sleep(0.05)
        assert not flood.done()
        assert reader.got <= 256 * 1024
        reader.gate.release(1)
        await flood
        await until(lambda: reader.got == 32 << 20)
        near.close()

    run_on(loop, scenario())


def test_insisting_without_a_reason_does_nothing() -> None:
    class Never(asyncio.Transport):
        def is_closing(self) -> bool:
            raise AssertionError("not asked")

    loop = asyncio.new_event_loop()
    ReadGate(Never(), loop).insist()
    loop.close()


def test_the_budget_is_as_told() -> None:
    class Counting(asyncio.Transport):
        paused = 0

        def is_closing(self) -> bool:
            return False

        def pause_reading(self) -> None:
            self.paused += 1

    async def scenario() -> None:
        transport = Counting()
        gate = ReadGate(transport, asyncio.get_running_loop(), 1000)
        gate.spend(1000)
        assert not transport.paused
        gate.spend(1)
        gate.spend(1)
        assert transport.paused == 1

    asyncio.run(scenario())
