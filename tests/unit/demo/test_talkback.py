from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from heim_proxy.demo.loopback import listen
from heim_proxy.demo.talkback import TalkBack


@pytest.fixture
async def service() -> AsyncIterator[tuple[TalkBack, int]]:
    sock = listen()
    service = TalkBack()
    await service.start(sock)
    yield service, sock.getsockname()[1]
    await service.close()


async def test_a_megabyte_comes_back_after_half_close(service: tuple[TalkBack, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service[1])
    received = asyncio.ensure_future(reader.read())
    writer.write(b"x" * 1_000_000)
    writer.write_eof()
    assert len(await received) == 1_000_000
    writer.close()


async def test_closing_ends_open_connections(service: tuple[TalkBack, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service[1])
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    await service[0].close()
    try:
        rest = await reader.read()
    except ConnectionResetError:
        rest = b""
    assert rest == b""
    writer.close()


async def test_a_client_that_resets_harms_nobody(service: tuple[TalkBack, int]) -> None:
    _, rude = await asyncio.open_connection("127.0.0.1", service[1])
    rude.write(b"x" * 100_000)
    rude.transport.abort()
    reader, writer = await asyncio.open_connection("127.0.0.1", service[1])
    writer.write(b"still there")
    assert await reader.readexactly(11) == b"still there"
    writer.close()
