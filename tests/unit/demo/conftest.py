"""A clock moved by hand, and applications served on real loopback sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp import web

from tests.fakes.sessions import ManualClock

Serve = Callable[[web.Application, socket.socket], Awaitable[str]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves an application on a listening socket until the test ends; gives its origin."""
    async with AsyncExitStack() as stack:

        async def start(app: web.Application, sock: socket.socket) -> str:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, sock).start()
            return f"http://127.0.0.1:{sock.getsockname()[1]}"

        yield start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps cookies of 127.0.0.1 and gives up after five seconds."""
    jar = aiohttp.CookieJar(unsafe=True)
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as session:
        yield session
