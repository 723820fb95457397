from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from heim_wire.aio.buffers import READ_BYTES, read_buffer
from heim_wire.aio.connection import serve
from heim_wire.session import Session
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until
from tests.unit.wire.passages import Watcher, drain, tcp_pair

ON_BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)


async def buffer() -> memoryview:
    return read_buffer()


@ON_BOTH_LOOPS
def test_a_loop_has_one_buffer(loop: str) -> None:
    async def scenario() -> None:
        assert len(read_buffer()) == READ_BYTES
        assert read_buffer() is read_buffer()

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_two_loops_have_two(loop: str) -> None:
    """They may run in two threads."""
    assert run_on(loop, buffer()) is not run_on(loop, buffer())


@ON_BOTH_LOOPS
def test_it_goes_with_its_loop(loop: str) -> None:
    ended = LOOPS[loop]()
    kept = weakref.ref(ended.run_until_complete(buffer()))
    ended.close()
    del ended
    gc.collect()
    assert kept() is None


@ON_BOTH_LOOPS
def test_connections_that_share_it_do_not_mix(loop: str) -> None:
    async def scenario() -> None:
        ends, watchers = [], []
        running = asyncio.get_running_loop()
        for number in range(3):
            near, local = tcp_pair()
            transport, _ = await running.connect_accepted_socket(asyncio.Protocol, local)
            watchers.append(Watcher())
            ends.append(near)
            serve(transport, Session(initiator=False, now=running.time()), watchers[-1])
            close = b"\x03\xe8bye" + str(number).encode()
            near.send(b"\x88\x86aaaa" + bytes(byte ^ ord("a") for byte in close))
        await until(lambda: all(watcher.ends for watcher in watchers))
        assert [watcher.ends[0][1] for watcher in watchers] == ["bye0", "bye1", "bye2"]
        for near in ends:
            assert b"\x88\x02\x03\xe8" in await drain(near)
            near.close()

    run_on(loop, scenario())
